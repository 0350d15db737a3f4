package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Problem is the API's error (RFC 9457) with what a person can do next.
type Problem struct {
	Type   string     `json:"type,omitempty" doc:"about:blank when it is not there: the title is the status's"`
	Title  string     `json:"title"`
	Status int        `json:"status"`
	Detail string     `json:"detail"`
	Kind   fault.Kind `json:"kind" enum:"invalid,not-found,conflict,denied,unavailable,failed,internal"`
	Hint   string     `json:"hint,omitempty" doc:"what to do next"`
	Errors []Mistake  `json:"errors,omitempty" doc:"what is wrong with the request, one by one"`
}

// Mistake is one thing that is wrong with a request.
type Mistake struct {
	Detail    string `json:"detail"`
	Pointer   string `json:"pointer,omitempty" doc:"JSON pointer into the body, as a fragment: #/suites/0"`
	Parameter string `json:"parameter,omitempty" doc:"name of the parameter that is wrong"`
	In        string `json:"in,omitempty" enum:"body,path,query,header"`
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

var statusOf = map[fault.Kind]int{
	fault.Invalid: http.StatusUnprocessableEntity, fault.NotFound: http.StatusNotFound, fault.Conflict: http.StatusConflict,
	fault.Denied: http.StatusForbidden, fault.Unavailable: http.StatusServiceUnavailable, fault.Failed: http.StatusBadGateway,
	fault.Internal: http.StatusInternalServerError,
}

func kindOf(status int) fault.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Denied
	case http.StatusNotFound:
		return fault.NotFound
	case http.StatusConflict:
		return fault.Conflict
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return fault.Unavailable
	}
	if status >= 500 {
		return fault.Internal
	}
	return fault.Invalid
}

// adopt makes huma's own errors, such as those of validation, problems like
// ours: the library has one place for that, for the whole process.
var adopt = sync.OnceFunc(func() {
	huma.NewError = func(status int, detail string, errs ...error) huma.StatusError {
		p := &Problem{Status: status, Title: http.StatusText(status), Detail: detail, Kind: kindOf(status)}
		for _, err := range errs {
			if err == nil {
				continue
			}
			var d huma.ErrorDetailer
			if errors.As(err, &d) {
				p.Errors = append(p.Errors, mistake(d.ErrorDetail()))
			} else {
				p.Errors = append(p.Errors, Mistake{Detail: err.Error()})
			}
		}
		return p
	}
})

// mistake takes huma's "body.items[3].tags" apart. What the client sent is not
// sent back.
func mistake(d *huma.ErrorDetail) Mistake {
	m := Mistake{Detail: d.Message}
	place, rest, _ := strings.Cut(d.Location, ".")
	if place == "" {
		return m
	}
	name, index, _ := strings.Cut(place, "[") // a body that is an array
	m.In = name
	if m.In != "body" {
		m.Parameter = rest
		return m
	}
	if index != "" {
		rest = "[" + index + "." + rest
	}
	m.Pointer = "#" + pointer(rest)
	if name := absent(d.Message); name != "" { // huma points to what lacks it
		m.Pointer += "/" + escape.Replace(name)
	}
	return m
}

// absent is the name of the field that a message of huma says is not there.
func absent(message string) string {
	before, after, _ := strings.Cut(validation.MsgExpectedRequiredProperty, "%s")
	if name, ok := strings.CutPrefix(message, before); ok && strings.HasSuffix(name, after) {
		return strings.TrimSuffix(name, after)
	}
	return ""
}

var escape = strings.NewReplacer("~", "~0", "/", "~1")

// pointer makes "items[3].tags" the JSON pointer /items/3/tags.
func pointer(path string) string {
	var b strings.Builder
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		b.WriteString("/" + escape.Replace(part))
	}
	return b.String()
}

// problem makes an error of the backend the API's.
func problem(err error) error {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	if fault.KindOf(err) == fault.Internal && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		err = &fault.Error{Kind: fault.Unavailable, Message: "it took too long, or the server is being stopped", Hint: "ask again", Err: err}
	}
	kind := fault.KindOf(err)
	status := statusOf[kind]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	if fault.CodeOf(err) == store.CodeFull {
		status = http.StatusInsufficientStorage
	}
	return &Problem{Title: http.StatusText(status), Status: status, Detail: err.Error(), Kind: kind, Hint: fault.HintOf(err)}
}

// refuse answers before an operation is reached.
func refuse(w http.ResponseWriter, status int, detail, hint string) {
	write(w, &Problem{Title: http.StatusText(status), Status: status, Detail: detail, Kind: kindOf(status), Hint: hint})
}

// later refuses for now.
func later(w http.ResponseWriter, status int, wait time.Duration, detail string) {
	seconds := max(int((wait+time.Second-1)/time.Second), 1)
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	refuse(w, status, detail, fmt.Sprintf("ask again in %d s", seconds))
}

func write(w http.ResponseWriter, p *Problem) {
	raw, err := json.Marshal(p)
	if err != nil {
		raw = []byte(`{"status":500,"detail":"the problem cannot be written","kind":"internal","title":"Internal Server Error"}`)
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(raw, '\n'))
}
