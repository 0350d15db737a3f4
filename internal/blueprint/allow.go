package blueprint

import (
	"fmt"
	"path"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const maxAllow = 100

// allow reads image.secrets_allow: each path with the reason why a secret may
// be there.
func (r *reader) allow(n ast.Node) []Allow {
	var out []Allow
	if n == nil {
		return nil
	}
	const such = `such as: secrets_allow: [{ path: /etc/app/demo.pem, reason: "a key for tests, public" }]`
	list, ok := n.(*ast.SequenceNode)
	if !ok || len(list.Values) > maxAllow {
		r.problem(n, such, "image.secrets_allow must be a list of at most %d paths with reasons", maxAllow)
		return nil
	}
	for k, v := range list.Values {
		where := fmt.Sprintf("image.secrets_allow[%d]", k)
		x := r.object(plain(v), where)
		a := Allow{Path: x.string("path", ""), Reason: x.string("reason", "")}
		x.done()
		_, err := path.Match(a.Path, "/")
		switch {
		case err != nil || !path.IsAbs(a.Path) || path.Clean(a.Path) != strings.TrimSuffix(a.Path, "/") || strings.ContainsAny(a.Path, "\n\r\x00") || len(a.Path) > 1000:
			r.problem(x.position("path"), such, "a path in image.secrets_allow is absolute and clean; it may be a pattern, and with a slash at the end it is for all below a folder")
		case strings.HasSuffix(a.Path, "/") && strings.Count(a.Path, "/") < 3 || strings.HasPrefix(a.Path, "/*") && strings.Trim(a.Path, "/*") == "":
			r.problem(x.position("path"), "name the folder that holds it", "%s is too much for an exception", a.Path)
		case strings.TrimSpace(a.Reason) == "":
			r.problem(x.position("path"), such, "the exception for %s has no reason", a.Path)
		}
		out = append(out, a)
	}
	return out
}
