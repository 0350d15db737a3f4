package autosign

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// Who hands a proof on to STS, at an address that is ours and not the proof's.
// The credentials of an instance's role have the instance's id as the name of
// their session; that the account is ours matters, since in another one anybody
// may call a session so.
func (e *EC2) Who(ctx context.Context, p handoff.Proof, certname string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	me, err := e.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	if me.Account == nil || *me.Account == "" {
		return "", errors.New("STS does not say which account this is")
	}
	return who(ctx, e.stsAddress, e.custom, p, certname, *me.Account)
}

// noRedirect: STS sends nobody elsewhere.
var noRedirect = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// who asks at address; custom says that it is not AWS's own, and instances may
// know it by another name.
func who(ctx context.Context, address string, custom bool, p handoff.Proof, certname, account string) (string, error) {
	if u, err := url.Parse(address); err != nil || !custom && u.Host != p.Host {
		return "", fmt.Errorf("the proof is for %.80q, and not for %s", p.Host, address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(address, "/")+"/", strings.NewReader(handoff.ProofBody))
	if err != nil {
		return "", err
	}
	req.Host = p.Host
	req.Header.Set("Content-Type", handoff.ProofType)
	req.Header.Set(handoff.ProofHeader, certname)
	req.Header.Set("X-Amz-Date", p.Date)
	req.Header.Set("Authorization", p.Authorization)
	if p.Token != "" {
		req.Header.Set("X-Amz-Security-Token", p.Token)
	}
	res, err := noRedirect.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("STS refuses the proof: %s", res.Status)
	}
	var answer struct {
		Result struct {
			ARN     string `xml:"Arn"`
			Account string
		} `xml:"GetCallerIdentityResult"`
	}
	if err := xml.Unmarshal(raw, &answer); err != nil {
		return "", fmt.Errorf("STS's answer cannot be read: %w", err)
	}
	if answer.Result.Account != account {
		return "", fmt.Errorf("the proof is of the account %s, not of %s", answer.Result.Account, account)
	}
	parts := strings.Split(answer.Result.ARN, "/")
	if len(parts) != 3 || !strings.Contains(parts[0], ":sts::"+account+":assumed-role") || !instanceForm.MatchString(parts[2]) {
		return "", fmt.Errorf("the proof is of %s, which is no instance's role", answer.Result.ARN)
	}
	return parts[2], nil
}
