package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// api speaks the few AWS operations that an instance needs, with its own role.
type api struct {
	client   *http.Client
	env      func(string) string
	now      func() time.Time
	metadata *metadata

	mu     sync.Mutex
	region string
	creds  credentials
}

// awsError is an error that AWS answered with.
type awsError struct {
	Op, Code, Message string
	Status            int
}

func (e *awsError) Error() string {
	s := fmt.Sprintf("%s: %s", e.Op, e.Code)
	if e.Code == "" {
		s = fmt.Sprintf("%s: HTTP status %d", e.Op, e.Status)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// temporary tells whether trying again may help.
func temporary(err error) bool {
	e, ok := errors.AsType[*awsError](err)
	if !ok {
		return err != nil // the connection broke
	}
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || strings.Contains(e.Code, "Throttl") || e.Code == "RequestLimitExceeded" ||
		e.Code == "ScalingActivityInProgress" || e.Code == "ResourceContention" || e.Code == "RequestExpired" || e.Code == "ExpiredToken"
}

// use tells the region where the instance knows it already.
func (a *api) use(region string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.region = region
}

func (a *api) credentials(ctx context.Context) (credentials, string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.region == "" {
		for _, k := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
			if a.region == "" {
				a.region = a.env(k)
			}
		}
	}
	if a.region == "" {
		r, err := a.metadata.get(ctx, "meta-data/placement/region")
		if err != nil {
			return credentials{}, "", err
		}
		a.region = r
	}
	if id := a.env("AWS_ACCESS_KEY_ID"); id != "" {
		return credentials{ID: id, Secret: a.env("AWS_SECRET_ACCESS_KEY"), Token: a.env("AWS_SESSION_TOKEN")}, a.region, nil
	}
	if a.creds.ID != "" && (a.creds.Expires.IsZero() || a.creds.Expires.After(a.now().Add(5*time.Minute))) {
		return a.creds, a.region, nil
	}
	c, err := a.metadata.role(ctx)
	if err != nil {
		return c, "", err
	}
	a.creds = c
	return c, a.region, nil
}

// endpoint is where a service is; custom says that it is not AWS's own name.
func (a *api) endpoint(service, region string) (u *url.URL, custom bool, err error) {
	for _, k := range []string{"AWS_ENDPOINT_URL_" + strings.ReplaceAll(strings.ToUpper(service), " ", "_"), "AWS_ENDPOINT_URL"} {
		if v := a.env(k); v != "" {
			u, err := url.Parse(v)
			if err != nil || u.Host == "" {
				return nil, false, fmt.Errorf("%s: %q is not an address", k, v)
			}
			return u, true, nil
		}
	}
	suffix := ".amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		suffix += ".cn"
	}
	return &url.URL{Scheme: "https", Host: service + "." + region + suffix}, false, nil
}

// callTime is how long a call may take, with its answer.
const callTime = 20 * time.Second

// post sends a signed request to a service of this region; the caller closes the
// answer's body.
func (a *api) post(ctx context.Context, service, op string, body []byte, header map[string]string) (*http.Response, error) {
	c, region, err := a.credentials(ctx)
	if err != nil {
		return nil, err
	}
	u, _, err := a.endpoint(service, region)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.Scheme+"://"+u.Host+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	sum := sha256.Sum256(body)
	sign(req, c, service, region, hex.EncodeToString(sum[:]), a.now())
	res, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return res, nil
}

// query calls an operation of an AWS query service.
func (a *api) query(ctx context.Context, service, version, action string, args map[string]string) (string, error) {
	form := url.Values{"Action": {action}, "Version": {version}}
	for k, v := range args {
		form.Set(k, v)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	res, err := a.post(ctx, service, service+":"+action, []byte(form.Encode()), map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"})
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	return answer(res, service+":"+action)
}

// parameter reads an SSM parameter, decrypted.
func (a *api) parameter(ctx context.Context, name string) (string, error) {
	const service, op = "ssm", "ssm:GetParameter"
	body, err := json.Marshal(map[string]any{"Name": name, "WithDecryption": true})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	res, err := a.post(ctx, service, op, body, map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonSSM.GetParameter"})
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	var out struct {
		Parameter struct{ Value string }
		Type      string `json:"__type"`
		Message   string `json:"message"`
	}
	err = json.Unmarshal(raw, &out)
	if res.StatusCode/100 != 2 {
		return "", &awsError{Op: op + " " + name, Code: out.Type[strings.LastIndexByte(out.Type, '#')+1:], Message: out.Message, Status: res.StatusCode}
	}
	if err != nil {
		return "", fmt.Errorf("%s: its answer cannot be read", op) // which may hold the secret
	}
	return out.Parameter.Value, nil
}

func answer(res *http.Response, op string) (string, error) {
	b, err := io.ReadAll(io.LimitReader(res.Body, 256<<10))
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if res.StatusCode/100 != 2 {
		return "", &awsError{Op: op, Code: element(string(b), "Code"), Message: element(string(b), "Message"), Status: res.StatusCode}
	}
	return string(b), nil
}

// element is the text of the first XML element of that name without children.
func element(doc, name string) string {
	_, rest, ok := strings.Cut(doc, "<"+name+">")
	if !ok {
		return ""
	}
	text, _, _ := strings.Cut(rest, "<")
	return html.UnescapeString(text)
}

func (a *api) object(ctx context.Context, method, address string, body io.Reader, size int64, payload string) (*http.Response, error) {
	bucket, key, err := handoff.ParseS3(address)
	if err != nil {
		return nil, err
	}
	c, region, err := a.credentials(ctx)
	if err != nil {
		return nil, err
	}
	u, custom, err := a.endpoint("s3", region)
	if err != nil {
		return nil, err
	}
	path := "/" + key
	if custom || strings.Contains(bucket, ".") {
		path = "/" + bucket + "/" + key
	} else {
		u.Host = bucket + "." + u.Host
	}
	req, err := http.NewRequestWithContext(ctx, method, u.Scheme+"://"+u.Host+"/", body)
	if err != nil {
		return nil, err
	}
	setPath(req.URL, path)
	req.ContentLength = size
	sign(req, c, "s3", region, payload, a.now())
	res, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("s3 %s %s: %w", method, address, err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		_, err := answer(res, "s3 "+method+" "+address)
		return nil, err
	}
	return res, nil
}

const emptyPayload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// open reads an S3 object; size is -1 where it is unknown.
func (a *api) open(ctx context.Context, address string) (io.ReadCloser, int64, error) {
	res, err := a.object(ctx, http.MethodGet, address, nil, 0, emptyPayload)
	if err != nil {
		return nil, 0, err
	}
	return res.Body, res.ContentLength, nil
}

// put writes an S3 object, with a few tries.
func (a *api) put(ctx context.Context, address string, body io.ReadSeeker) error {
	h := sha256.New()
	size, err := io.Copy(h, body)
	if err != nil {
		return err
	}
	payload := hex.EncodeToString(h.Sum(nil))
	return a.retry(ctx, 5, func() error {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return err
		}
		var rd io.Reader = http.NoBody
		if size > 0 {
			rd = io.NopCloser(body)
		}
		res, err := a.object(ctx, http.MethodPut, address, rd, size, payload)
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
}

// retry repeats what may succeed later, with growing pauses.
func (a *api) retry(ctx context.Context, tries int, f func() error) error {
	pause := 100 * time.Millisecond
	for i := 1; ; i++ {
		err := f()
		if err == nil || !temporary(err) || i == tries || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(3*pause, 5*time.Second)
	}
}
