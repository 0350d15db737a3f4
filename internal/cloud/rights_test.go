package cloud

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The page about AWS names every call that the driver makes.
func TestRightsAreWritten(t *testing.T) {
	page, err := os.ReadFile("../../docs/howto/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`"(?:autoscaling|cloudformation|cloudwatch|ec2|elasticloadbalancing|s3|ssm|sts):([A-Z][A-Za-z0-9]+)"`)
	seen := 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range calls.FindAllStringSubmatch(string(src), -1) {
			seen++
			if !regexp.MustCompile(`\b` + m[1] + `\b`).Match(page) {
				t.Errorf("%s calls %s, which docs/howto/aws.md does not name", f, m[0])
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d calls were found", seen)
	}
}
