package template

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// shortTags are CloudFormation's short forms and what they stand for.
var shortTags = map[string]string{"!Ref": "Ref", "!Condition": "Condition"}

func init_shortTags() {}

func longForm(tag string) (string, bool) {
	if l, ok := shortTags[tag]; ok {
		return l, true
	}
	name := "Fn::" + strings.TrimPrefix(tag, "!")
	_, ok := functions[name]
	return name, ok
}
