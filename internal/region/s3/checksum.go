package s3

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"strings"
)

// checksum is a value and its algorithm, in S3's upper-case name.
type checksum struct {
	Algorithm string `json:",omitempty"`
	Value     string `json:",omitempty"` // base64
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(0x9a6c9329ac4bc9b5)
)

func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case "CRC32":
		return crc32.NewIEEE()
	case "CRC32C":
		return crc32.New(castagnoli)
	case "CRC64NVME":
		return nvmeHash{crc64.New(nvme)}
	case "SHA1":
		return sha1.New()
	case "SHA256":
		return sha256.New()
	}
	return nil
}

// nvmeHash sums big-endian, whatever the library does.
type nvmeHash struct{ hash.Hash64 }

func (h nvmeHash) Sum(b []byte) []byte { return binary.BigEndian.AppendUint64(b, h.Sum64()) }

var algorithms = []string{"CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"}

func checksumHeader(algorithm string) string { return "X-Amz-Checksum-" + algorithm }

// digests is what is computed of a body while it is read.
type digests struct {
	md5       hash.Hash
	sum       hash.Hash
	algorithm string
}

// digests finds out which checksum the request carries, as a header or as an
// announced trailer; def is the algorithm where it carries none.
func (c *call) digests(def string) (*digests, error) {
	d := &digests{md5: md5.New(), algorithm: def}
	n := 0
	for _, a := range algorithms {
		announced := strings.EqualFold(strings.TrimSpace(c.r.Header.Get("X-Amz-Trailer")), checksumHeader(a))
		if c.r.Header.Get(checksumHeader(a)) != "" || announced {
			d.algorithm = a
			n++
		}
	}
	if n > 1 {
		return nil, failure(http.StatusBadRequest, "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
	}
	d.sum = newHash(d.algorithm)
	return d, nil
}

func (d *digests) Write(p []byte) (int, error) {
	d.md5.Write(p)
	if d.sum != nil {
		d.sum.Write(p)
	}
	return len(p), nil
}

func (d *digests) etag() string { return hex.EncodeToString(d.md5.Sum(nil)) }

func (d *digests) checksum() checksum {
	if d.sum == nil {
		return checksum{}
	}
	return checksum{d.algorithm, base64.StdEncoding.EncodeToString(d.sum.Sum(nil))}
}

// check compares with what the client says; the body must have been read, so
// that trailers are there.
func (d *digests) check(r *http.Request) error {
	if want := r.Header.Get("Content-Md5"); want != "" {
		b, err := base64.StdEncoding.DecodeString(want)
		if err != nil || len(b) != md5.Size {
			return failure(http.StatusBadRequest, "InvalidDigest", "The Content-MD5 you specified was invalid.")
		}
		if subtle.ConstantTimeCompare(b, d.md5.Sum(nil)) != 1 {
			return failure(http.StatusBadRequest, "BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	if d.sum == nil {
		return nil
	}
	name := checksumHeader(d.algorithm)
	want := r.Header.Get(name)
	if want == "" {
		want = r.Trailer.Get(name)
	}
	if want != "" && want != d.checksum().Value {
		return failure(http.StatusBadRequest, "BadDigest", "The %s you specified did not match the calculated checksum.", d.algorithm)
	}
	return nil
}
