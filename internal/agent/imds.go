package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// metadata speaks IMDSv2.
type metadata struct {
	client *http.Client
	base   string

	mu    sync.Mutex
	token string
}

var errAbsent = errors.New("the metadata service does not have it")

const tokenLife = 6 * time.Hour

func (m *metadata) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for try := 0; ; try++ {
		token, err := m.session(ctx, try > 0)
		if err != nil {
			return "", err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+"/latest/"+path, nil)
		if err != nil {
			return "", err
		}
		req.Header.Set("X-aws-ec2-metadata-token", token)
		code, body, err := m.do(req)
		switch {
		case err != nil:
			return "", err
		case code == http.StatusNotFound:
			return "", fmt.Errorf("%s: %w", path, errAbsent)
		case code == http.StatusUnauthorized && try == 0:
			continue // the session is over
		case code != http.StatusOK:
			return "", fmt.Errorf("metadata service: %s: HTTP status %d", path, code)
		}
		return body, nil
	}
}

func (m *metadata) session(ctx context.Context, fresh bool) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.token != "" && !fresh {
		return m.token, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, m.base+"/latest/api/token", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-aws-ec2-metadata-token-ttl-seconds", fmt.Sprint(int(tokenLife/time.Second)))
	code, body, err := m.do(req)
	if err != nil {
		return "", err
	}
	if code != http.StatusOK {
		return "", fmt.Errorf("metadata service: no session: HTTP status %d", code)
	}
	m.token = body
	return body, nil
}

func (m *metadata) do(req *http.Request) (int, string, error) {
	res, err := m.client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("metadata service: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return 0, "", fmt.Errorf("metadata service: %w", err)
	}
	return res.StatusCode, string(body), nil
}

// identity is what the instance is.
type identity struct {
	Instance string `json:"instanceId"`
	Image    string `json:"imageId"`
	Type     string `json:"instanceType"`
	Region   string `json:"region"`
	Zone     string `json:"availabilityZone"`
	IP       string `json:"privateIp"`
}

// identity is one request where the identity document is, else one for each.
func (m *metadata) identity(ctx context.Context) (identity, error) {
	var id identity
	doc, err := m.get(ctx, "dynamic/instance-identity/document")
	if err == nil {
		if err := json.Unmarshal([]byte(doc), &id); err == nil && id.Instance != "" && id.Region != "" {
			return id, nil
		}
	} else if !errors.Is(err, errAbsent) {
		return id, err
	}
	for _, f := range []struct {
		path string
		to   *string
	}{
		{"instance-id", &id.Instance}, {"ami-id", &id.Image}, {"instance-type", &id.Type},
		{"placement/region", &id.Region}, {"placement/availability-zone", &id.Zone}, {"local-ipv4", &id.IP},
	} {
		if *f.to, err = m.get(ctx, "meta-data/"+f.path); err != nil {
			return id, err
		}
	}
	return id, nil
}

// userData is "" where there is none.
func (m *metadata) userData(ctx context.Context) (string, error) {
	s, err := m.get(ctx, "user-data")
	if errors.Is(err, errAbsent) {
		return "", nil
	}
	return s, err
}

type credentials struct {
	ID      string    `json:"AccessKeyId"`
	Secret  string    `json:"SecretAccessKey"`
	Token   string    `json:"Token"`
	Expires time.Time `json:"Expiration"`
}

// role gives the instance role's credentials.
func (m *metadata) role(ctx context.Context) (credentials, error) {
	const base = "meta-data/iam/security-credentials/"
	var c credentials
	name, err := m.get(ctx, base)
	if errors.Is(err, errAbsent) || (err == nil && strings.TrimSpace(name) == "") {
		return c, errors.New("the instance has no role: its launch template needs an IamInstanceProfile")
	}
	if err != nil {
		return c, err
	}
	name, _, _ = strings.Cut(strings.TrimSpace(name), "\n")
	doc, err := m.get(ctx, base+name)
	if err != nil {
		return c, fmt.Errorf("credentials of role %s: %w", name, err)
	}
	if err := json.Unmarshal([]byte(doc), &c); err != nil || c.ID == "" {
		return c, fmt.Errorf("credentials of role %s cannot be read", name)
	}
	return c, nil
}
