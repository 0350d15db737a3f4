package wire_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

// sink answers with the body and the trailers it got, or with what went wrong.
type sink struct{}

func (sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, err.Error())
		return
	}
	c, _ := wire.CallerFrom(r.Context())
	fmt.Fprintf(w, "%s|%d|%s|%s|%s", b, r.ContentLength, r.Trailer.Get("x-amz-checksum-crc32"), r.Header.Get("Content-Encoding"), c.ARN)
}

func TestChunkedBodies(t *testing.T) {
	e := newEndpoint(t)
	e.wire.Objects = sink{}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	const signedForm, trailerForm, signedTrailerForm = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	put := func(form, trailer string, length int, body func(chain func(kind, text string) string) string) (int, string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, e.URL+"/bucket/a%20key%2B", nil)
		r.Header.Set("Content-Encoding", "aws-chunked")
		r.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(length))
		r.Header.Set("X-Amz-Content-Sha256", form)
		if trailer != "" {
			r.Header.Set("X-Amz-Trailer", trailer)
		}
		now := e.clock.Now().UTC()
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
		if err := signer.SignHTTP(t.Context(), aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}, r, form, "s3", "local-1", now); err != nil {
			t.Fatal(err)
		}
		_, prev, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
		day := now.Format("20060102")
		key := mac(mac(mac(mac([]byte("AWS4"+secret), day), "local-1"), "s3"), "aws4_request")
		chain := func(kind, text string) string {
			parts := []string{"AWS4-HMAC-SHA256-" + kind, now.Format("20060102T150405Z"), day + "/local-1/s3/aws4_request", prev}
			if kind == "PAYLOAD" {
				parts = append(parts, empty)
			}
			prev = hex.EncodeToString(mac(key, strings.Join(append(parts, sum(text)), "\n")))
			return prev
		}
		s := body(chain)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), int64(len(s))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	chunk := func(chain func(kind, text string) string, text string) string {
		return fmt.Sprintf("%x;chunk-signature=%s\r\n%s\r\n", len(text), chain("PAYLOAD", text), text)
	}
	last := func(chain func(kind, text string) string) string {
		return fmt.Sprintf("0;chunk-signature=%s\r\n", chain("PAYLOAD", ""))
	}
	type chainer = func(kind, text string) string
	const crc = "x-amz-checksum-crc32"
	root := "arn:aws:iam::123456789012:root"
	tests := []struct {
		name, form, trailer string
		length              int
		body                func(chainer) string
		status              int
		want                string
	}{
		{"signed", signedForm, "", 11, func(c chainer) string { return chunk(c, "hello ") + chunk(c, "world") + last(c) + "\r\n" }, 200, "hello world|11|||" + root},
		{"signed, empty", signedForm, "", 0, func(c chainer) string { return last(c) + "\r\n" }, 200, "|0|||" + root},
		{"signed, changed", signedForm, "", 5, func(c chainer) string {
			return strings.Replace(chunk(c, "hello"), "hello", "jello", 1) + last(c) + "\r\n"
		}, 400, "signature of a chunk"},
		{"signed, cut", signedForm, "", 11, func(c chainer) string { return chunk(c, "hello ") + last(c) + "\r\n" }, 400, "x-amz-decoded-content-length"},
		{"signed, without end", signedForm, "", 6, func(c chainer) string { return chunk(c, "hello ") }, 400, "ends too early"},
		{"signed, longer", signedForm, "", 2, func(c chainer) string { return chunk(c, "hello ") + last(c) + "\r\n" }, 400, "size is wrong"},
		{"trailer", trailerForm, crc, 5, func(chainer) string { return "5\r\nhello\r\n0\r\n" + crc + ":NhCmhg==\r\n\r\n" }, 200, "hello|5|NhCmhg==||" + root},
		{"trailer without last line", trailerForm, crc, 5, func(chainer) string { return "5\r\nhello\r\n0\r\n" + crc + ":NhCmhg==\r\n" }, 200, "hello|5|NhCmhg==||" + root},
		{"trailer not announced", trailerForm, "", 5, func(chainer) string { return "5\r\nhello\r\n0\r\n" + crc + ":NhCmhg==\r\n\r\n" }, 400, "not announced"},
		{"trailer missing", trailerForm, crc, 5, func(chainer) string { return "5\r\nhello\r\n0\r\n\r\n" }, 400, "MalformedTrailer"},
		{"bad size", trailerForm, crc, 5, func(chainer) string { return "-5\r\nhello\r\n0\r\n\r\n" }, 400, "size is wrong"},
		{"signed trailer", signedTrailerForm, crc, 5, func(c chainer) string {
			s := chunk(c, "hello") + last(c)
			return s + crc + ":NhCmhg==\r\nx-amz-trailer-signature:" + c("TRAILER", crc+":NhCmhg==\n") + "\r\n\r\n"
		}, 200, "hello|5|NhCmhg==||" + root},
		{"signed trailer, changed", signedTrailerForm, crc, 5, func(c chainer) string {
			s := chunk(c, "hello") + last(c)
			return s + crc + ":AAAAAA==\r\nx-amz-trailer-signature:" + c("TRAILER", crc+":NhCmhg==\n") + "\r\n\r\n"
		}, 400, "signature of a chunk"},
		{"unknown form", "STREAMING-X", "", 0, func(chainer) string { return "" }, 501, "NotImplemented"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, got := put(tt.form, tt.trailer, tt.length, tt.body)
			if status != tt.status || !strings.Contains(got, tt.want) {
				t.Errorf("got %d %s, want %d %s", status, got, tt.status, tt.want)
			}
		})
	}
}
