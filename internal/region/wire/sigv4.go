package wire

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Authenticator knows access keys. An unknown key is the error
// InvalidClientTokenId, an old session token ExpiredToken.
type Authenticator interface {
	Secret(ctx context.Context, accessKeyID, sessionToken string) (secret string, caller Caller, err error)
}

const (
	algorithm  = "AWS4-HMAC-SHA256"
	maxSkew    = 15 * time.Minute
	maxPresign = 7 * 24 * time.Hour
	amzDate    = "20060102T150405Z"
	emptyHash  = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

	unsignedPayload = "UNSIGNED-PAYLOAD"
)

// signature is what a request says about who signed it and how.
type signature struct {
	keyID, day, region, service string // the credential scope
	signed                      []string
	sum                         string
	when                        time.Time
	stamp                       string // X-Amz-Date as it was sent
	token                       string
	presigned                   bool
	lifetime                    time.Duration // of a presigned request
	signingKey                  []byte        // once the secret is known
}

func (s *signature) scope() string {
	return s.day + "/" + s.region + "/" + s.service + "/aws4_request"
}

func incomplete(format string, args ...any) *Error {
	e := Errorf("IncompleteSignature", format, args...)
	return e
}

// parseSignature reads the signature from the Authorization header or from
// the query of a presigned request; it checks nothing that needs the secret.
func parseSignature(r *http.Request, query url.Values) (*signature, error) {
	s := &signature{}
	var credential, signedHeaders string
	if auth := r.Header.Get("Authorization"); auth != "" {
		rest, ok := strings.CutPrefix(auth, algorithm)
		if !ok {
			return nil, incomplete("the signature algorithm is not supported, use %s", algorithm)
		}
		for part := range strings.SplitSeq(rest, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch k {
			case "Credential":
				credential = v
			case "SignedHeaders":
				signedHeaders = v
			case "Signature":
				s.sum = v
			}
		}
		s.token = r.Header.Get("X-Amz-Security-Token")
		s.stamp = r.Header.Get("X-Amz-Date")
		if s.stamp == "" {
			if t, err := http.ParseTime(r.Header.Get("Date")); err == nil {
				s.stamp = t.UTC().Format(amzDate)
			}
		}
	} else if query.Has("X-Amz-Signature") {
		s.presigned = true
		if query.Get("X-Amz-Algorithm") != algorithm {
			return nil, incomplete("X-Amz-Algorithm must be %s", algorithm)
		}
		credential, signedHeaders, s.sum = query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature")
		s.token, s.stamp = query.Get("X-Amz-Security-Token"), query.Get("X-Amz-Date")
		// STS's presigned identities carry no lifetime.
		sec, err := strconv.Atoi(cmp.Or(query.Get("X-Amz-Expires"), strconv.Itoa(int(maxSkew/time.Second))))
		s.lifetime = time.Duration(sec) * time.Second
		if err != nil || sec < 1 || sec > int(maxPresign/time.Second) {
			return nil, incomplete("X-Amz-Expires must be a number of seconds between 1 and 604800")
		}
	} else {
		return nil, &Error{Code: "MissingAuthenticationToken", Message: "Request is missing Authentication Token", Status: http.StatusForbidden}
	}
	scope := strings.Split(credential, "/")
	if len(scope) < 5 || scope[len(scope)-1] != "aws4_request" {
		return nil, incomplete("Authorization requires a 'Credential' of the form KEY/DATE/REGION/SERVICE/aws4_request")
	}
	n := len(scope)
	s.keyID, s.day, s.region, s.service = strings.Join(scope[:n-4], "/"), scope[n-4], scope[n-3], scope[n-2]
	if s.keyID == "" || s.service == "" || s.sum == "" || signedHeaders == "" {
		return nil, incomplete("Authorization requires 'Credential', 'SignedHeaders' and 'Signature'")
	}
	var err error
	if s.when, err = time.Parse(amzDate, s.stamp); err != nil {
		return nil, incomplete("Authorization requires a valid 'X-Amz-Date' or 'Date' header")
	}
	if s.when.Format("20060102") != s.day {
		return nil, incomplete("the date of the credential scope does not match that of the request")
	}
	s.signed = strings.Split(signedHeaders, ";")
	if !slices.Contains(s.signed, "host") {
		return nil, incomplete("the Host header must be signed")
	}
	// What changes the meaning of a request must be signed.
	for name := range r.Header {
		if low := strings.ToLower(name); strings.HasPrefix(low, "x-amz-") && !slices.Contains(s.signed, low) {
			return nil, &Error{Code: "SignatureDoesNotMatch", Status: http.StatusForbidden, Message: "There were headers present in the request which were not signed: " + low}
		}
	}
	return s, nil
}

// inTime checks the clock of the one who signed.
func (s *signature) inTime(now time.Time) error {
	from, to := s.when.Add(-maxSkew), s.when.Add(maxSkew)
	if s.presigned {
		to = s.when.Add(s.lifetime)
	}
	if now.Before(from) || now.After(to) {
		how := "expired"
		if now.Before(from) {
			how = "not yet current"
		}
		return &Error{Code: "RequestTimeTooSkewed", Status: http.StatusForbidden, Message: fmt.Sprintf("Signature %s: the request was signed at %s, the time here is %s (clocks may differ by %d minutes)", how, s.stamp, now.UTC().Format(amzDate), int(maxSkew.Minutes()))}
	}
	return nil
}

func hmacSHA256(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

func hashHex(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// verify checks the signature with the secret. bodyHash is what stands for
// the body in the canonical request.
func (s *signature) verify(r *http.Request, secret, bodyHash string) error {
	k := hmacSHA256([]byte("AWS4"+secret), s.day)
	k = hmacSHA256(k, s.region)
	k = hmacSHA256(k, s.service)
	s.signingKey = hmacSHA256(k, "aws4_request")
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return incomplete("the query string is malformed")
	}
	headers := s.canonicalHeaders(r)
	ok := 0
	for _, path := range s.canonicalPaths(r.URL) {
		canonical := strings.Join([]string{r.Method, path, query, headers, strings.Join(s.signed, ";"), bodyHash}, "\n")
		sum := hex.EncodeToString(hmacSHA256(s.signingKey, strings.Join([]string{algorithm, s.stamp, s.scope(), hashHex([]byte(canonical))}, "\n")))
		ok |= subtle.ConstantTimeCompare([]byte(sum), []byte(s.sum))
	}
	if ok != 1 {
		return &Error{Code: "SignatureDoesNotMatch", Status: http.StatusForbidden, Message: "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method."}
	}
	return nil
}

// canonicalPaths gives the path as it may have been signed: for S3 encoded
// once or, as curl does, exactly as it was sent; for all others encoded twice.
// All of them stand for the path that was asked for.
func (s *signature) canonicalPaths(u *url.URL) []string {
	path := u.Path
	if path == "" {
		path = "/"
	}
	once := encodeURI(path, true)
	if s.service == "s3" {
		return []string{once, u.EscapedPath()}
	}
	return []string{encodeURI(once, true), once}
}

func (s *signature) canonicalHeaders(r *http.Request) string {
	var b strings.Builder
	for _, name := range s.signed {
		b.WriteString(name + ":")
		switch vals := r.Header.Values(name); {
		case name == "host":
			b.WriteString(r.Host)
		case name == "content-length" && len(vals) == 0 && r.ContentLength >= 0:
			b.WriteString(strconv.FormatInt(r.ContentLength, 10))
		case name == "transfer-encoding" && len(vals) == 0:
			b.WriteString(strings.Join(r.TransferEncoding, ","))
		default:
			for i, v := range vals {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(strings.Join(strings.Fields(v), " "))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// canonicalQuery sorts and encodes the query as SigV4 wants, without the
// signature itself.
func canonicalQuery(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	var pairs [][2]string
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		k, err := url.QueryUnescape(k)
		if err != nil {
			return "", err
		}
		if v, err = url.QueryUnescape(v); err != nil {
			return "", err
		}
		if k == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, [2]string{encodeURI(k, false), encodeURI(v, false)})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0] + "=" + p[1])
	}
	return b.String(), nil
}

func encodeURI(s string, keepSlash bool) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~', c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}
