package wire

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Forms of a body that is sent in chunks of aws-chunked.
const (
	streamSigned        = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamSignedTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	streamTrailer       = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamPrefix        = "STREAMING-"
	maxChunkLine        = 4 << 10
	maxTrailers         = 16
)

var errHash = &Error{Code: "XAmzContentSHA256Mismatch", Message: "The provided 'x-amz-content-sha256' header does not match what was computed.", Status: http.StatusBadRequest}

// hashedBody fails at its end when the bytes were not those that were signed.
type hashedBody struct {
	io.Closer
	r    io.Reader
	h    hash.Hash
	want string
}

func newHashedBody(body io.ReadCloser, want string) *hashedBody {
	h := sha256.New()
	return &hashedBody{Closer: body, r: io.TeeReader(body, h), h: h, want: want}
}

func (b *hashedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF && subtle.ConstantTimeCompare([]byte(hex.EncodeToString(b.h.Sum(nil))), []byte(b.want)) != 1 {
		return n, errHash
	}
	return n, err
}

// chunkedBody decodes aws-chunked: each chunk is "size[;chunk-signature=…]",
// the last one is empty and may be followed by trailers.
type chunkedBody struct {
	io.Closer
	r       *bufio.Reader
	sig     *signature // nil where chunks are not signed
	prev    string     // signature of the chunk before
	hash    hash.Hash
	left    int64  // of the current chunk
	sum     string // signature of the current chunk
	in      bool   // inside a chunk
	total   int64
	want    int64 // x-amz-decoded-content-length
	trailer http.Header
	allowed []string // announced trailers, lower case; nil where none may come
	err     error
}

func malformedChunk(why string) error {
	return Errorf("IncompleteBody", "The aws-chunked body is malformed: %s", why)
}

func newChunkedBody(r *http.Request, sig *signature, form string) (*chunkedBody, error) {
	want, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil || want < 0 {
		return nil, &Error{Code: "MissingContentLength", Message: "You must provide the x-amz-decoded-content-length HTTP header.", Status: http.StatusLengthRequired}
	}
	b := &chunkedBody{Closer: r.Body, r: bufio.NewReaderSize(r.Body, 64<<10), hash: sha256.New(), want: want, trailer: http.Header{}}
	switch form {
	case streamSigned:
		b.sig = sig
	case streamSignedTrailer:
		b.sig, b.allowed = sig, []string{}
	case streamTrailer:
		b.allowed = []string{}
	default:
		return nil, &Error{Code: "NotImplemented", Message: "the local region does not implement the payload form " + form, Status: http.StatusNotImplemented}
	}
	if b.allowed != nil {
		for name := range strings.SplitSeq(r.Header.Get("X-Amz-Trailer"), ",") {
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
				b.allowed = append(b.allowed, name)
			}
		}
	}
	if b.sig != nil {
		b.prev = sig.sum
	}
	return b, nil
}

func (b *chunkedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = malformedChunk("it ends too early")
	}
	b.err = err
	return n, err
}

func (b *chunkedBody) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !b.in {
		if err := b.head(); err != nil {
			return 0, err
		}
		if b.left == 0 { // the last chunk
			if err := b.checkChunk(); err != nil {
				return 0, err
			}
			if b.total != b.want {
				return 0, malformedChunk("its length is not x-amz-decoded-content-length")
			}
			if err := b.trailers(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.hash.Write(p[:n])
	b.left -= int64(n)
	b.total += int64(n)
	if b.left == 0 && n > 0 {
		b.in = false
		if err := b.checkChunk(); err != nil {
			return 0, err
		}
		line, err := b.line()
		if err != nil {
			return n, err
		}
		if line != "" {
			return n, malformedChunk("a chunk is longer than its size")
		}
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *chunkedBody) line() (string, error) {
	var buf []byte
	for {
		c, err := b.r.ReadByte()
		if err != nil {
			return "", io.ErrUnexpectedEOF
		}
		if c == '\n' {
			return strings.TrimSuffix(string(buf), "\r"), nil
		}
		if buf = append(buf, c); len(buf) > maxChunkLine {
			return "", malformedChunk("a line is too long")
		}
	}
}

func (b *chunkedBody) head() error {
	line, err := b.line()
	if err != nil {
		return err
	}
	size, ext, _ := strings.Cut(line, ";")
	b.left, err = strconv.ParseInt(strings.TrimSpace(size), 16, 64)
	if err != nil || b.left < 0 || b.left > b.want-b.total {
		return malformedChunk("a chunk's size is wrong")
	}
	b.sum = ""
	if v, ok := strings.CutPrefix(strings.TrimSpace(ext), "chunk-signature="); ok {
		b.sum = v
	}
	b.in = true
	b.hash.Reset()
	return nil
}

func (b *chunkedBody) checkChunk() error {
	if b.sig == nil {
		return nil
	}
	data := strings.Join([]string{algorithm + "-PAYLOAD", b.sig.stamp, b.sig.scope(), b.prev, emptyHash, hex.EncodeToString(b.hash.Sum(nil))}, "\n")
	return b.checkSum(data, b.sum)
}

func (b *chunkedBody) checkSum(data, got string) error {
	want := hex.EncodeToString(hmacSHA256(b.sig.signingKey, data))
	if subtle.ConstantTimeCompare([]byte(want), []byte(got)) != 1 {
		return &Error{Code: "SignatureDoesNotMatch", Message: "The signature of a chunk does not match its bytes.", Status: http.StatusForbidden}
	}
	b.prev = want
	return nil
}

// trailers reads what follows the last chunk. Only announced names count.
func (b *chunkedBody) trailers() error {
	var signed strings.Builder
	var sum string
	for i := 0; ; i++ {
		line, err := b.line()
		if err != nil && b.r.Buffered() == 0 && line == "" {
			break // some clients end without the last empty line
		}
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		if i == maxTrailers {
			return malformedChunk("it has too many trailers")
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !ok {
			return malformedChunk("a trailer has no name")
		}
		if name == "x-amz-trailer-signature" {
			sum = value
			continue
		}
		if !slices.Contains(b.allowed, name) {
			return malformedChunk("the trailer " + name + " was not announced")
		}
		signed.WriteString(name + ":" + value + "\n")
		b.trailer.Set(name, value)
	}
	for _, name := range b.allowed {
		if b.trailer.Get(name) == "" {
			return Errorf("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
	}
	if b.sig != nil && b.allowed != nil {
		data := strings.Join([]string{algorithm + "-TRAILER", b.sig.stamp, b.sig.scope(), b.prev, hashHex([]byte(signed.String()))}, "\n")
		return b.checkSum(data, sum)
	}
	return nil
}
