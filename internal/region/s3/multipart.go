package s3

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/state"
)

const (
	maxParts = 10_000
	minPart  = 5 << 20 // of every part but the last
)

func partID(upload string, n int) string { return fmt.Sprintf("%s/%05d", upload, n) }

func noUpload() error {
	return failure(http.StatusNotFound, "NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.")
}

func (c *call) upload(tx *state.Tx) (upload, error) {
	u, ok := c.uploads.Get(tx, c.query.Get("uploadId"))
	if !ok || u.Bucket != c.bucket || u.Key != c.key {
		return u, noUpload()
	}
	return u, nil
}

func (c *call) createUpload() error {
	if err := c.may("PutObject"); err != nil {
		return err
	}
	h, err := c.objectHeaders()
	if err != nil {
		return err
	}
	u := upload{ID: newID(), Bucket: c.bucket, Key: c.key, Headers: h, Started: c.modified(), Algorithm: strings.ToUpper(c.r.Header.Get("X-Amz-Checksum-Algorithm")), ChecksumType: c.r.Header.Get("X-Amz-Checksum-Type")}
	switch {
	case u.Algorithm != "" && newHash(u.Algorithm) == nil:
		return failure(http.StatusBadRequest, "InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
	case u.Algorithm == "" || u.Algorithm == "CRC64NVME":
		u.Algorithm, u.ChecksumType = "CRC64NVME", "FULL_OBJECT"
	case u.ChecksumType == "":
		u.ChecksumType = "COMPOSITE"
	case u.ChecksumType == "FULL_OBJECT" && strings.HasPrefix(u.Algorithm, "SHA"):
		return failure(http.StatusBadRequest, "InvalidRequest", "The FULL_OBJECT checksum type cannot be used with the %s checksum algorithm.", strings.ToLower(u.Algorithm))
	}
	err = c.db.Update(func(tx *state.Tx) error {
		if _, ok := c.buckets.Get(tx, c.bucket); !ok {
			return noBucket()
		}
		c.uploads.Put(tx, u.ID, u)
		return nil
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("X-Amz-Checksum-Algorithm", u.Algorithm)
	c.w.Header().Set("X-Amz-Checksum-Type", u.ChecksumType)
	return c.answer("InitiateMultipartUploadResult", struct{ Bucket, Key, UploadId string }{c.bucket, c.key, u.ID})
}

func (c *call) uploadPart() error {
	if err := c.may("PutObject"); err != nil {
		return err
	}
	n, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || n < 1 || n > maxParts {
		return failure(http.StatusBadRequest, "InvalidArgument", "Part number must be an integer between 1 and %d, inclusive", maxParts)
	}
	var u upload
	c.db.View(func(tx *state.Tx) { u, err = c.upload(tx) })
	if err != nil {
		return err
	}
	file, size, d, err := c.receive(u.Algorithm)
	if err != nil {
		return err
	}
	if d.algorithm != u.Algorithm && u.ChecksumType == "COMPOSITE" {
		c.drop(file)
		return failure(http.StatusBadRequest, "InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", strings.ToLower(u.Algorithm), strings.ToLower(d.algorithm))
	}
	p := part{Number: n, File: file, Size: size, ETag: d.etag(), Checksum: d.checksum(), Modified: c.modified()}
	var old part
	err = c.db.Update(func(tx *state.Tx) error {
		if _, err := c.upload(tx); err != nil { // it may have ended meanwhile
			return err
		}
		old, _ = c.parts.Get(tx, partID(u.ID, n))
		c.parts.Put(tx, partID(u.ID, n), p)
		return nil
	})
	if err != nil {
		c.drop(file)
		return err
	}
	c.drop(old.File)
	c.w.Header().Set("ETag", quote(p.ETag))
	if p.Checksum.Value != "" {
		c.w.Header().Set(checksumHeader(p.Checksum.Algorithm), p.Checksum.Value)
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// forget removes an upload's rows and returns its files.
func (s *Service) forget(tx *state.Tx, id string) (files []string) {
	for pid, p := range s.parts.All(tx) {
		if strings.HasPrefix(pid, id+"/") {
			files = append(files, p.File)
			s.parts.Delete(tx, pid)
		}
	}
	s.uploads.Delete(tx, id)
	return files
}

func (c *call) abortUpload() error {
	if err := c.may("AbortMultipartUpload"); err != nil {
		return err
	}
	var files []string
	err := c.db.Update(func(tx *state.Tx) error {
		u, err := c.upload(tx)
		if err == nil {
			files = c.forget(tx, u.ID)
		}
		return err
	})
	if err == nil {
		c.drop(files...)
	}
	return c.noContent(err)
}

type completion struct {
	XMLName xml.Name `xml:"CompleteMultipartUpload"`
	Part    []struct {
		PartNumber int
		ETag       string
	}
}

// chosen are the parts that the client wants, in order.
func (c *call) chosen(in completion) (u upload, out []part, err error) {
	c.db.View(func(tx *state.Tx) {
		if u, err = c.upload(tx); err != nil {
			return
		}
		last := 0
		for i, want := range in.Part {
			p, ok := c.parts.Get(tx, partID(u.ID, want.PartNumber))
			switch {
			case want.PartNumber <= last:
				err = failure(http.StatusBadRequest, "InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.")
			case !ok || strings.Trim(want.ETag, `"`) != p.ETag:
				err = failure(http.StatusBadRequest, "InvalidPart", "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
			case p.Size < minPart && i < len(in.Part)-1:
				err = failure(http.StatusBadRequest, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
			}
			if err != nil {
				return
			}
			last = want.PartNumber
			out = append(out, p)
		}
	})
	return u, out, err
}

func (c *call) completeUpload() error {
	if err := c.may("PutObject"); err != nil {
		return err
	}
	var in completion
	// A checksum in the header is one of the object, not of this document.
	want := checksum{}
	for _, a := range algorithms {
		if v := c.r.Header.Get(checksumHeader(a)); v != "" {
			want = checksum{a, v}
			c.r.Header.Del(checksumHeader(a))
		}
	}
	if err := c.read(&in); err != nil {
		return err
	}
	if len(in.Part) == 0 || len(in.Part) > maxParts {
		return malformedXML()
	}
	u, parts, err := c.chosen(in)
	if err != nil {
		return err
	}
	o := object{Bucket: c.bucket, Key: c.key, Modified: c.modified(), Headers: u.Headers, ChecksumType: u.ChecksumType}
	etag, composite, full := md5.New(), newHash(u.Algorithm), newHash(u.Algorithm)
	for _, p := range parts {
		b, _ := hex.DecodeString(p.ETag)
		etag.Write(b)
		if b, err := base64.StdEncoding.DecodeString(p.Checksum.Value); err == nil {
			composite.Write(b)
		}
		o.Size += p.Size
	}
	if o.Size > maxObject {
		return failure(http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	}
	o.ETag = fmt.Sprintf("%x-%d", etag.Sum(nil), len(parts))
	o.File, err = c.write(func(w io.Writer) error {
		if u.ChecksumType == "FULL_OBJECT" {
			w = io.MultiWriter(w, full)
		}
		for _, p := range parts {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			if err := c.append(w, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	sum := base64.StdEncoding.EncodeToString(full.Sum(nil))
	if u.ChecksumType == "COMPOSITE" {
		sum = fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(composite.Sum(nil)), len(parts))
	}
	o.Checksum = checksum{u.Algorithm, sum}
	if want.Value != "" && (want.Algorithm != u.Algorithm || strings.TrimSuffix(sum, fmt.Sprintf("-%d", len(parts))) != strings.TrimSuffix(want.Value, fmt.Sprintf("-%d", len(parts)))) {
		c.drop(o.File)
		return failure(http.StatusBadRequest, "BadDigest", "The %s you specified did not match the calculated checksum.", want.Algorithm)
	}
	err = c.commit(o, func(tx *state.Tx) ([]string, error) {
		if _, err := c.upload(tx); err != nil {
			return nil, err
		}
		return c.forget(tx, u.ID), nil
	})
	if err != nil {
		return err
	}
	c.checksumHeaders(o)
	return c.answer("CompleteMultipartUploadResult", struct{ Location, Bucket, Key, ETag string }{"/" + c.bucket + "/" + c.key, c.bucket, c.key, quote(o.ETag)})
}

func (s *Service) append(w io.Writer, p part) error {
	f, err := os.Open(s.file(p.File))
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, f)
	if err == nil && n != p.Size {
		err = fmt.Errorf("part %d has %d bytes and not %d", p.Number, n, p.Size)
	}
	return err
}

func (c *call) listParts() error {
	if err := c.may("ListMultipartUploadParts"); err != nil {
		return err
	}
	limit, after := 1000, 0
	for name, to := range map[string]*int{"max-parts": &limit, "part-number-marker": &after} {
		if v := c.query.Get(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 {
				return failure(http.StatusBadRequest, "InvalidArgument", "%s must be an integer", name)
			}
			*to = n
		}
	}
	limit = max(1, min(limit, 1000))
	type entry struct {
		PartNumber         int
		LastModified, ETag string
		Size               int64
	}
	var out struct {
		Bucket, Key, UploadId string
		PartNumberMarker      int
		NextPartNumberMarker  int
		MaxParts              int
		IsTruncated           bool
		StorageClass          string
		Part                  []entry
	}
	out.Bucket, out.Key, out.UploadId, out.PartNumberMarker, out.MaxParts, out.StorageClass = c.bucket, c.key, c.query.Get("uploadId"), after, limit, "STANDARD"
	var err error
	c.db.View(func(tx *state.Tx) {
		var u upload
		if u, err = c.upload(tx); err != nil {
			return
		}
		for id, p := range c.parts.All(tx) {
			if !strings.HasPrefix(id, u.ID+"/") || p.Number <= after {
				continue
			}
			if len(out.Part) == limit {
				out.IsTruncated = true
				return
			}
			out.Part = append(out.Part, entry{p.Number, stamp(p.Modified), quote(p.ETag), p.Size})
			out.NextPartNumberMarker = p.Number
		}
	})
	if err != nil {
		return err
	}
	return c.answer("ListPartsResult", out)
}

func (c *call) listUploads() error {
	if err := c.may("ListBucketMultipartUploads"); err != nil {
		return err
	}
	if _, err := c.load(); err != nil {
		return err
	}
	type entry struct{ Key, UploadId, Initiated string }
	var out struct {
		Bucket      string
		MaxUploads  int
		IsTruncated bool
		Upload      []entry
	}
	out.Bucket = c.bucket
	c.db.View(func(tx *state.Tx) {
		for id, u := range c.uploads.All(tx) {
			if u.Bucket == c.bucket && strings.HasPrefix(u.Key, c.query.Get("prefix")) {
				out.Upload = append(out.Upload, entry{u.Key, id, stamp(u.Started)})
			}
		}
	})
	out.MaxUploads = len(out.Upload)
	return c.answer("ListMultipartUploadsResult", out)
}
