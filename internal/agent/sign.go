package agent

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// sign puts AWS Signature Version 4 on a request that has no query string.
// payload is the hex SHA-256 of the body. Written out here because the SDK's
// signer brings a middleware stack whose memory every instance would pay for;
// a test compares the two.
func sign(req *http.Request, c credentials, service, region, payload string, now time.Time) {
	stamp := now.UTC().Format("20060102T150405Z")
	req.Header.Set("X-Amz-Date", stamp)
	if c.Token != "" {
		req.Header.Set("X-Amz-Security-Token", c.Token)
	}
	if service == "s3" {
		req.Header.Set("X-Amz-Content-Sha256", payload)
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	headers := map[string]string{"host": host}
	for k := range req.Header {
		if l := strings.ToLower(k); strings.HasPrefix(l, "x-amz-") || l == "content-type" {
			headers[l] = strings.TrimSpace(req.Header.Get(k))
		}
	}
	names := make([]string, 0, len(headers))
	for k := range headers {
		names = append(names, k)
	}
	slices.Sort(names)
	path := req.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	var b strings.Builder
	b.WriteString(req.Method + "\n" + path + "\n\n")
	for _, n := range names {
		b.WriteString(n + ":" + headers[n] + "\n")
	}
	signed := strings.Join(names, ";")
	b.WriteString("\n" + signed + "\n" + payload)
	scope := stamp[:8] + "/" + region + "/" + service + "/aws4_request"
	sum := sha256.Sum256([]byte(b.String()))
	key := []byte("AWS4" + c.Secret)
	for _, part := range []string{stamp[:8], region, service, "aws4_request"} {
		key = mac(key, part)
	}
	signature := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(sum[:])))
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+c.ID+"/"+scope+", SignedHeaders="+signed+", Signature="+signature)
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

// setPath sets a path whose bytes are encoded as AWS does: everything but
// letters, digits and -_.~/.
func setPath(u *url.URL, path string) {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(path) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	u.Path, u.RawPath = path, b.String()
}
