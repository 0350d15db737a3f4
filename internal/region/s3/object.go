package s3

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/state"
)

func objectID(bucket, key string) string { return bucket + "/" + key }

func noKey() error {
	return failure(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
}

// kept are the headers that belong to an object, besides x-amz-meta-*.
var kept = []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control", "Expires"}

const maxMetadata = 2 << 10

// objectHeaders reads what to keep and refuses what is not done.
func (c *call) objectHeaders() (headers, error) {
	if err := c.refuse("X-Amz-Tagging", "X-Amz-Website-Redirect-Location", "X-Amz-Object-Lock-Mode", "X-Amz-Object-Lock-Legal-Hold", "X-Amz-Server-Side-Encryption",
		"X-Amz-Server-Side-Encryption-Customer-Algorithm", "X-Amz-Grant-Full-Control", "X-Amz-Grant-Read", "X-Amz-Write-Offset-Bytes"); err != nil {
		return nil, err
	}
	if a := c.r.Header.Get("X-Amz-Acl"); a != "" && a != "private" && a != "bucket-owner-full-control" {
		return nil, c.refuse("X-Amz-Acl")
	}
	if a := c.r.Header.Get("X-Amz-Storage-Class"); a != "" && a != "STANDARD" {
		return nil, c.refuse("X-Amz-Storage-Class")
	}
	h, size := headers{}, 0
	for name, v := range c.r.Header {
		meta := strings.HasPrefix(name, "X-Amz-Meta-")
		if meta {
			size += len(name) - len("X-Amz-Meta-") + len(strings.Join(v, ","))
		}
		if meta || slices.Contains(kept, name) {
			h[name] = strings.Join(v, ",")
		}
	}
	if size > maxMetadata {
		return nil, failure(http.StatusBadRequest, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
	}
	if h["Content-Type"] == "" {
		h["Content-Type"] = "binary/octet-stream"
	}
	return h, nil
}

// receive writes the body to a file of its own; nothing points to it yet.
func (c *call) receive(def string) (file string, size int64, d *digests, err error) {
	switch n := c.r.ContentLength; {
	case n < 0:
		return "", 0, nil, failure(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
	case n > maxObject:
		return "", 0, nil, failure(http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	}
	if d, err = c.digests(def); err != nil {
		return "", 0, nil, err
	}
	file, err = c.write(func(w io.Writer) error {
		n, err := io.Copy(io.MultiWriter(w, d), c.r.Body)
		if errors.Is(err, io.ErrUnexpectedEOF) || err == nil && n != c.r.ContentLength {
			return failure(http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
		}
		size = n
		if err != nil {
			return err
		}
		return d.check(c.r)
	})
	return file, size, d, err
}

// write makes a body file: written aside, on disk, and only then in its place.
func (s *Service) write(fill func(io.Writer) error) (name string, err error) {
	name = newID()
	tmp, err := os.OpenFile(filepath.Join(s.dir, "tmp", name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	err = fill(tmp)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	final := s.file(name)
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return "", err
	}
	if err := os.Rename(tmp.Name(), final); err != nil {
		return "", err
	}
	dir, err := os.Open(filepath.Dir(final))
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return name, dir.Sync()
}

func (c *call) putObject() error {
	if err := c.may("PutObject"); err != nil {
		return err
	}
	if _, err := c.load(); err != nil {
		return err
	}
	h, err := c.objectHeaders()
	if err != nil {
		return err
	}
	file, size, d, err := c.receive("CRC64NVME")
	if err != nil {
		return err
	}
	o := object{Bucket: c.bucket, Key: c.key, File: file, Size: size, ETag: d.etag(), Modified: c.modified(), Headers: h, Checksum: d.checksum(), ChecksumType: "FULL_OBJECT"}
	if err := c.commit(o, nil); err != nil {
		return err
	}
	c.w.Header().Set("ETag", quote(o.ETag))
	c.checksumHeaders(o)
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// commit makes an object known and drops the body that it replaces; when it
// fails the new body goes. Also may change more in the same transaction.
func (c *call) commit(o object, also func(tx *state.Tx) ([]string, error)) error {
	var old []string
	err := c.db.Update(func(tx *state.Tx) error {
		if _, ok := c.buckets.Get(tx, o.Bucket); !ok {
			return noBucket()
		}
		id := objectID(o.Bucket, o.Key)
		was, exists := c.objects.Get(tx, id)
		if err := c.writeConditions(was, exists); err != nil {
			return err
		}
		old = append(old, was.File)
		if also != nil {
			more, err := also(tx)
			if err != nil {
				return err
			}
			old = append(old, more...)
		}
		c.objects.Put(tx, id, o)
		return nil
	})
	if err != nil {
		c.drop(o.File)
		return err
	}
	c.drop(old...)
	return nil
}

// writeConditions are the preconditions of a conditional write.
func (c *call) writeConditions(was object, exists bool) error {
	failed := failure(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	if h := c.r.Header.Get("If-None-Match"); h != "" {
		if h != "*" {
			return c.refuse("If-None-Match")
		}
		if exists {
			return failed
		}
	}
	if h := c.r.Header.Get("If-Match"); h != "" {
		if !exists {
			return noKey()
		}
		if !etagIn(h, was.ETag) {
			return failed
		}
	}
	return nil
}

func quote(etag string) string { return `"` + etag + `"` }

func etagIn(list, etag string) bool {
	for t := range strings.SplitSeq(list, ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.Trim(t, `"`) == etag {
			return true
		}
	}
	return false
}

func (c *call) checksumHeaders(o object) {
	if o.Checksum.Value != "" {
		c.w.Header().Set(checksumHeader(o.Checksum.Algorithm), o.Checksum.Value)
		c.w.Header().Set("X-Amz-Checksum-Type", o.ChecksumType)
	}
}

// find reads the call's object. One who may not list a bucket does not learn
// what is not in it.
func (c *call) find() (o object, err error) {
	var ok bool
	c.db.View(func(tx *state.Tx) {
		if _, there := c.buckets.Get(tx, c.bucket); !there {
			err = noBucket()
		}
		o, ok = c.objects.Get(tx, objectID(c.bucket, c.key))
	})
	if err == nil && !ok {
		if err = c.mayOn("ListBucket", "arn:aws:s3:::"+c.bucket, nil); err == nil {
			err = noKey()
		}
	}
	return o, err
}

func (c *call) getObject() error {
	if err := c.may("GetObject"); err != nil {
		return err
	}
	var o object
	var f *os.File
	for try := 0; ; try++ {
		var err error
		if o, err = c.find(); err != nil {
			return err
		}
		// The object may be replaced between the two: then look again.
		if f, err = os.Open(c.file(o.File)); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) || try == 3 {
			return fmt.Errorf("the body of %s is lost: %w", objectID(o.Bucket, o.Key), err)
		}
	}
	defer f.Close()
	h := c.w.Header()
	for k, v := range o.Headers {
		h.Set(k, v)
	}
	for _, k := range kept {
		if v := c.query.Get("response-" + strings.ToLower(k)); v != "" {
			h.Set(k, v)
		}
	}
	h.Set("ETag", quote(o.ETag))
	h.Set("Last-Modified", o.Modified.Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	if done, err := c.readConditions(o); done || err != nil {
		return err
	}
	from, n, partial, err := byteRange(c.r.Header.Get("Range"), o.Size)
	if err != nil {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", o.Size))
		return err
	}
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+n-1, o.Size))
	} else if strings.EqualFold(c.r.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") {
		c.checksumHeaders(o)
	}
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err
	}
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if m, err := io.CopyN(c.w, f, n); err != nil && m < n && c.ctx.Err() == nil {
		panic(http.ErrAbortHandler) // a short answer must not look like a whole one
	}
	return nil
}

// readConditions answers 304 itself.
func (c *call) readConditions(o object) (done bool, err error) {
	r := c.r.Header
	since := func(name string) (modified, ok bool) {
		t, err := http.ParseTime(r.Get(name))
		return err == nil && o.Modified.After(t), err == nil
	}
	failed := failure(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	if m := r.Get("If-Match"); m != "" {
		if !etagIn(m, o.ETag) {
			return false, failed
		}
	} else if modified, ok := since("If-Unmodified-Since"); ok && modified {
		return false, failed
	}
	if m := r.Get("If-None-Match"); m != "" {
		done = etagIn(m, o.ETag)
	} else if modified, ok := since("If-Modified-Since"); ok {
		done = !modified
	}
	if done {
		h := c.w.Header()
		maps.DeleteFunc(h, func(k string, _ []string) bool { return k == "Content-Type" || k == "Content-Encoding" })
		c.w.WriteHeader(http.StatusNotModified)
	}
	return done, nil
}

// byteRange reads a Range header; several ranges and other units are ignored,
// as S3 does.
func byteRange(h string, size int64) (from, n int64, partial bool, err error) {
	spec, ok := strings.CutPrefix(h, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	unsatisfiable := failure(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
	if first == "" {
		tail, err := strconv.ParseInt(last, 10, 64)
		if err != nil || tail < 0 {
			return 0, size, false, nil
		}
		if tail == 0 || size == 0 {
			return 0, 0, false, unsatisfiable
		}
		tail = min(tail, size)
		return size - tail, tail, true, nil
	}
	from, err = strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, size, false, nil
	}
	end := size - 1
	if last != "" {
		e, err := strconv.ParseInt(last, 10, 64)
		if err != nil || e < from {
			return 0, size, false, nil
		}
		end = min(end, e)
	}
	if from >= size {
		return 0, 0, false, unsatisfiable
	}
	return from, end - from + 1, true, nil
}
