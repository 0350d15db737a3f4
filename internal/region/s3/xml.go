package s3

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// answer writes an XML document whose root has the name.
func (c *call) answer(name string, v any) error {
	var b strings.Builder
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	if err := e.EncodeElement(v, xml.StartElement{Name: xml.Name{Space: namespace, Local: name}}); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	io.WriteString(c.w, b.String()) // a client that went away needs no answer
	return nil
}

// read parses the body into v and checks its checksums, if it has any.
func (c *call) read(v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxXML))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return failure(http.StatusRequestEntityTooLarge, "EntityTooLarge", "The document has more than %d bytes", maxXML)
		}
		return err
	}
	d, err := c.digests("")
	if err != nil {
		return err
	}
	d.Write(body)
	if err := d.check(c.r); err != nil {
		return err
	}
	if err := xml.Unmarshal(body, v); err != nil {
		return malformedXML()
	}
	return nil
}

func malformedXML() error {
	return failure(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// encoded is a key as encoding-type=url wants it.
func (c *call) encoded(key string) string {
	if c.query.Get("encoding-type") != "url" {
		return key
	}
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(key))
}
