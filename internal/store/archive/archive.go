// Package archive is the form of a backup: all that a store holds, as lines of
// JSON, the same for every kind of database. The first line says what it is, the
// last one how much there was and its checksum. It must not know what the
// records mean.
package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Format is the version that is written, and the newest that is read.
const Format = 1

const (
	magic = "dayfly backup"
	// maxLine is more than the largest record makes.
	maxLine = 40 << 20
)

// Head is the first line.
type Head struct {
	Magic  string    `json:"what"`
	Format int       `json:"format"`
	Made   time.Time `json:"made"`
	By     string    `json:"by"` // version of Dayfly
}

// Sum is the last line.
type Sum struct {
	Records int    `json:"records"` // deleted ones are not counted
	Blobs   int    `json:"blobs"`
	SHA256  string `json:"sha256"` // of all lines before
}

type line struct {
	Record *record `json:"record,omitempty"`
	Blob   string  `json:"blob,omitempty"`
	Part   int     `json:"part,omitempty"`
	Data   []byte  `json:"data,omitempty"`
	End    *Sum    `json:"end,omitempty"`
}

type record struct {
	Kind    string          `json:"kind"`
	Name    string          `json:"name"`
	Version int64           `json:"version"`
	Updated time.Time       `json:"updated"`
	Deleted bool            `json:"deleted,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Write writes all that s holds at this moment.
func Write(ctx context.Context, w io.Writer, s store.Store, head Head) (Sum, error) {
	var sum Sum
	h := sha256.New()
	buf := bufio.NewWriterSize(w, 1<<16)
	out := io.MultiWriter(buf, h)
	put := func(v any) error {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = out.Write(append(raw, '\n'))
		return err
	}
	head.Magic, head.Format = magic, Format
	if err := put(head); err != nil {
		return sum, err
	}
	err := s.Dump(ctx, func(i store.Item) error {
		if i.Record == nil {
			if i.Part == 0 {
				sum.Blobs++
			}
			return put(line{Blob: i.Blob, Part: i.Part, Data: i.Data})
		}
		r := i.Record
		if r.Body != nil {
			sum.Records++
		}
		return put(line{Record: &record{r.Kind, r.Name, r.Version, r.Updated, r.Body == nil, r.Body}})
	})
	if err != nil {
		return sum, err
	}
	sum.SHA256 = hex.EncodeToString(h.Sum(nil))
	if err := put(line{End: &sum}); err != nil {
		return sum, err
	}
	return sum, buf.Flush()
}

// A Reader reads a backup line by line. What it has read is proven only when it
// has come to the end.
type Reader struct {
	Head Head
	Sum  Sum // known at the end
	in   *bufio.Reader
	hash hash.Hash
	n    int // lines
	got  Sum
}

func bad(n int, message string, err error) error {
	return &fault.Error{Kind: fault.Invalid, Op: "read the backup", Object: fmt.Sprintf("line %d", n), Message: message, Hint: "the file is damaged or cut off: take another backup's; nothing was changed", Err: err}
}

// NewReader reads the first line.
func NewReader(r io.Reader) (*Reader, error) {
	a := &Reader{in: bufio.NewReaderSize(r, 1<<16), hash: sha256.New()}
	raw, err := a.line()
	if err == nil {
		err = json.Unmarshal(raw, &a.Head)
	}
	if err != nil || a.Head.Magic != magic {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "read the backup", Message: "this is no backup of Dayfly", Hint: "dayfly backup FILE makes one; one that was compressed must be unpacked first"}
	}
	if a.Head.Format > Format {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "read the backup", Message: fmt.Sprintf("it has format %d and was made by a newer Dayfly, %s (this one knows %d)", a.Head.Format, a.Head.By, Format), Hint: "restore it with that version or a newer one"}
	}
	a.hash.Write(raw)
	return a, nil
}

// line reads a line with its end, and no more than the limit.
func (a *Reader) line() ([]byte, error) {
	a.n++
	var out []byte
	for {
		part, err := a.in.ReadSlice('\n')
		out = append(out, part...)
		if len(out) > maxLine {
			return nil, errors.New("the line is too long")
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return out, err
		}
	}
}

// Next gives the next element, and io.EOF at an end that is right.
func (a *Reader) Next() (store.Item, error) {
	raw, err := a.line()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // io.EOF is that of a whole backup
	}
	if err != nil {
		return store.Item{}, bad(a.n, "the end is missing", err)
	}
	var l line
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return store.Item{}, bad(a.n, "it cannot be read", err)
	}
	switch {
	case l.End != nil:
		a.Sum = *l.End
		a.got.SHA256 = hex.EncodeToString(a.hash.Sum(nil))
		if a.Sum != a.got {
			return store.Item{}, bad(a.n, fmt.Sprintf("the checksum does not fit: it says %+v, there is %+v", a.Sum, a.got), nil)
		}
		return store.Item{}, io.EOF
	case l.Record != nil:
		a.hash.Write(raw)
		r := store.Record{Kind: l.Record.Kind, Name: l.Record.Name, Version: l.Record.Version, Updated: l.Record.Updated, Body: l.Record.Body}
		if l.Record.Deleted {
			r.Body = nil
		} else {
			a.got.Records++
		}
		return store.Item{Record: &r}, nil
	case l.Blob != "":
		a.hash.Write(raw)
		if l.Part == 0 {
			a.got.Blobs++
		}
		return store.Item{Blob: l.Blob, Part: l.Part, Data: l.Data}, nil
	}
	return store.Item{}, bad(a.n, "it has nothing that a backup has", nil)
}

// Read puts a backup into a store, after it has read all of it once: a damaged
// one changes nothing.
func Read(ctx context.Context, in io.ReadSeeker, s store.Store, replace bool) (Head, Sum, error) {
	r, err := NewReader(in)
	if err != nil {
		return Head{}, Sum{}, err
	}
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, io.EOF) {
		return r.Head, r.Sum, err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return r.Head, r.Sum, err
	}
	if r, err = NewReader(in); err != nil {
		return Head{}, Sum{}, err
	}
	err = s.Load(ctx, replace, r.Next)
	return r.Head, r.Sum, err
}
