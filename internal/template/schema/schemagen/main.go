// Command schemagen makes the schema package's data from the database of the
// npm package @aws-cdk/aws-service-spec (Apache-2.0):
//
//	npm pack @aws-cdk/aws-service-spec && tar xzf aws-cdk-aws-service-spec-*.tgz
//	go run ./internal/template/schema/schemagen package/db.json.gz internal/template/schema
//
// It keeps the types that realised.txt lists, without their documentation,
// and the names of all the others.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

type typ struct {
	Type      string `json:"type"`
	Element   *typ   `json:"element"`
	Types     []typ  `json:"types"`
	Reference struct {
		ID string `json:"$ref"`
	} `json:"reference"`
}

type property struct {
	Type        typ    `json:"type"`
	Required    bool   `json:"required"`
	Replacement string `json:"causesReplacement"`
}

type entity struct {
	ID         string              `json:"$id"`
	CFN        string              `json:"cloudFormationType"`
	Name       string              `json:"name"`
	Properties map[string]property `json:"properties"`
	Attributes map[string]property `json:"attributes"`
}

// prop and object are what the schema package reads back.
type prop struct {
	Type        string `json:"t"`
	Required    bool   `json:"r,omitempty"`
	Replacement string `json:"c,omitempty"`
}

type object struct {
	Properties map[string]prop   `json:"p"`
	Attributes map[string]string `json:"a,omitempty"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: schemagen DB.JSON.GZ DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func run(db, dir string) error {
	f, err := os.Open(db)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", db, err)
	}
	var d struct {
		Schema struct {
			Resource, TypeDefinition struct{ Entities []entity }
		}
	}
	if err := json.NewDecoder(z).Decode(&d); err != nil {
		return fmt.Errorf("read %s: %w", db, err)
	}
	wanted, err := lines(filepath.Join(dir, "realised.txt"))
	if err != nil {
		return err
	}
	g := generator{defs: map[string]entity{}, names: map[string]string{}, out: map[string]object{}}
	for _, e := range d.Schema.TypeDefinition.Entities {
		g.defs[e.ID] = e
	}
	var all []string
	for _, e := range d.Schema.Resource.Entities {
		if e.CFN == "" || strings.HasPrefix(e.CFN, "Alexa::") {
			continue
		}
		all = append(all, e.CFN)
		if !slices.Contains(wanted, e.CFN) {
			continue
		}
		wanted = slices.DeleteFunc(wanted, func(s string) bool { return s == e.CFN })
		o := g.object(e, e.CFN)
		o.Attributes = map[string]string{}
		for n, a := range e.Attributes {
			o.Attributes[n] = g.code(a.Type, e.CFN)
		}
		g.out[e.CFN] = o
	}
	if len(wanted) > 0 {
		return fmt.Errorf("realised.txt: the database does not know %s", strings.Join(wanted, ", "))
	}
	slices.Sort(all)
	body, err := json.Marshal(g.out)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(dir, "schema.json.gz"), body); err != nil {
		return err
	}
	return write(filepath.Join(dir, "types.txt.gz"), []byte(strings.Join(slices.Compact(all), "\n")+"\n"))
}

type generator struct {
	defs  map[string]entity
	names map[string]string // definition's id and owner -> its key in out
	out   map[string]object
}

func (g *generator) object(e entity, owner string) object {
	o := object{Properties: map[string]prop{}}
	for n, p := range e.Properties {
		c := map[string]string{"yes": "y", "maybe": "m"}[p.Replacement]
		o.Properties[n] = prop{Type: g.code(p.Type, owner), Required: p.Required, Replacement: c}
	}
	return o
}

// code writes a type as a short text: s(tring) i(nteger) n(umber) b(oolean)
// j(son) t(ag), [T a list, {T a map, @Name an object, * anything scalar.
func (g *generator) code(t typ, owner string) string {
	switch t.Type {
	case "string", "date-time":
		return "s"
	case "integer":
		return "i"
	case "number":
		return "n"
	case "boolean":
		return "b"
	case "json":
		return "j"
	case "tag":
		return "t"
	case "array":
		return "[" + g.code(*t.Element, owner)
	case "map":
		return "{" + g.code(*t.Element, owner)
	case "ref":
		return "@" + g.def(t.Reference.ID, owner)
	case "union":
		return g.union(t, owner)
	}
	panic("schemagen: unknown kind of type " + t.Type)
}

// union keeps what can be said of all alternatives.
func (g *generator) union(t typ, owner string) string {
	kinds := map[string]bool{}
	for _, u := range t.Types {
		kinds[g.code(u, owner)] = true
	}
	for k := range kinds {
		if k == "j" || k[0] == '[' || k[0] == '{' || k[0] == '@' {
			return "j"
		}
	}
	return "*"
}

func (g *generator) def(id, owner string) string {
	k := owner + "/" + id
	if n, ok := g.names[k]; ok {
		return n
	}
	e := g.defs[id]
	name := owner + "." + e.Name
	for i := 2; ; i++ { // two definitions of one name in one type
		if _, taken := g.out[name]; !taken {
			break
		}
		name = fmt.Sprintf("%s.%s%d", owner, e.Name, i)
	}
	g.names[k] = name
	g.out[name] = object{} // taken, before the recursion
	g.out[name] = g.object(e, owner)
	return name
}

func write(path string, body []byte) error {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(body); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func lines(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, _, _ := strings.Cut(s.Text(), " ")
		if name != "" && !strings.HasPrefix(name, "#") {
			out = append(out, name)
		}
	}
	return out, s.Err()
}
