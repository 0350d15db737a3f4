package agent

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// counts of test cases.
type counts struct{ passed, failed, skipped int }

// results are JUnit documents put together as one.
type results struct {
	counts
	body bytes.Buffer
}

// add puts the testsuite elements of a document in. A document that is not
// JUnit is an error, and nothing of it is taken.
func (r *results) add(name string, doc []byte) error {
	d := xml.NewDecoder(bytes.NewReader(doc))
	var c counts
	var parts [][]byte
	for {
		at := d.InputOffset()
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		el, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		switch el.Name.Local {
		case "testsuites":
			continue
		case "testsuite":
		default:
			return fmt.Errorf("%s: <%s> is not JUnit", name, el.Name.Local)
		}
		if err := c.suite(d); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		parts = append(parts, doc[at:d.InputOffset()])
	}
	if len(parts) == 0 {
		return fmt.Errorf("%s: there is no test suite in it", name)
	}
	for _, p := range parts {
		r.body.Write(bytes.TrimSpace(p))
		r.body.WriteByte('\n')
	}
	r.passed, r.failed, r.skipped = r.passed+c.passed, r.failed+c.failed, r.skipped+c.skipped
	return nil
}

// suite counts the cases of an open testsuite, to its end.
func (c *counts) suite(d *xml.Decoder) error {
	inCase, failed, skipped := false, false, false
	for depth := 1; depth > 0; {
		t, err := d.Token()
		if err != nil {
			return err
		}
		switch el := t.(type) {
		case xml.StartElement:
			depth++
			switch el.Name.Local {
			case "testcase":
				inCase, failed, skipped = true, false, false
			case "failure", "error":
				failed = failed || inCase
			case "skipped":
				skipped = skipped || inCase
			}
		case xml.EndElement:
			depth--
			if el.Name.Local != "testcase" {
				continue
			}
			inCase = false
			switch {
			case failed:
				c.failed++
			case skipped:
				c.skipped++
			default:
				c.passed++
			}
		}
	}
	return nil
}

// one adds a suite with a single case of its own; failure "" is a pass.
func (r *results) one(suite, name, failure, output string, seconds float64) {
	fmt.Fprintf(&r.body, `<testsuite name="%s" tests="1" failures="%d" time="%.3f"><testcase classname="%s" name="%s" time="%.3f">`,
		escape(suite), btoi(failure != ""), seconds, escape(suite), escape(name), seconds)
	if failure == "" {
		r.passed++
	} else {
		r.failed++
		fmt.Fprintf(&r.body, `<failure message="%s">%s</failure>`, escape(failure), escape(output))
	}
	r.body.WriteString("</testcase></testsuite>\n")
}

func (r *results) document() []byte {
	return []byte(xml.Header + fmt.Sprintf("<testsuites tests=\"%d\" failures=\"%d\" skipped=\"%d\">\n", r.passed+r.failed+r.skipped, r.failed, r.skipped) + r.body.String() + "</testsuites>\n")
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
