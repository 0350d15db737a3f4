package pipeline

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxFailures is how many failing cases a record keeps; the JUnit file has all.
const maxFailures = 20

type testcase struct {
	Name    string    `xml:"name,attr"`
	Class   string    `xml:"classname,attr"`
	Failure *testnote `xml:"failure"`
	Error   *testnote `xml:"error"`
	Skipped *testnote `xml:"skipped"`
}

type testnote struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// ReadJUnit adds the cases of a JUnit XML document to the suite's counts. Any
// nesting of testsuites and testsuite is taken.
func (s *Suite) ReadJUnit(raw []byte) error {
	d := xml.NewDecoder(bytes.NewReader(raw))
	d.Strict = true
	cases := 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the JUnit file cannot be read: %w", err)
		}
		el, ok := t.(xml.StartElement)
		if !ok || el.Name.Local != "testcase" {
			continue
		}
		var c testcase
		if err := d.DecodeElement(&c, &el); err != nil {
			return fmt.Errorf("the JUnit file cannot be read: %w", err)
		}
		cases++
		note := c.Failure
		if note == nil {
			note = c.Error
		}
		switch {
		case note != nil:
			s.Failed++
			if len(s.Failures) < maxFailures {
				s.Failures = append(s.Failures, Failure{Case: strings.TrimPrefix(c.Class+"."+c.Name, "."), Message: firstLine(note)})
			}
		case c.Skipped != nil:
			s.Skipped++
		default:
			s.Passed++
		}
	}
	if cases == 0 {
		return errors.New("the JUnit file has no test case")
	}
	return nil
}

func firstLine(n *testnote) string {
	m := strings.TrimSpace(n.Message)
	if m == "" {
		m, _, _ = strings.Cut(strings.TrimSpace(n.Text), "\n")
	}
	if len(m) > 500 {
		m = m[:500] + "…"
	}
	return m
}
