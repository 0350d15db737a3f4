package s3

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/box/boxtest"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

type bucket map[string]string

func (b bucket) ObjectIn(_ context.Context, name, key string) (io.ReadCloser, error) {
	if name != "corp" {
		return nil, &fault.Error{Kind: fault.NotFound, Op: "s3:GetObject", Object: name, Code: "NoSuchBucket"}
	}
	body, ok := b[key]
	if !ok {
		return nil, &fault.Error{Kind: fault.NotFound, Op: "s3:GetObject", Object: key, Code: "NoSuchKey"}
	}
	return io.NopCloser(strings.NewReader(body)), nil
}

func TestBox(t *testing.T) {
	for _, address := range []string{"s3://corp/shop", "s3://corp/shop/", "s3://corp", "s3://corp/"} {
		t.Run(address, func(t *testing.T) {
			boxtest.Run(t, func(t *testing.T, files map[string]string) box.Box {
				prefix := ""
				if strings.Contains(address, "shop") {
					prefix = "shop/"
				}
				b := bucket{}
				for name, body := range files {
					b[prefix+name] = body
				}
				return New(address, b)
			})
		})
	}
}

func TestNoBucket(t *testing.T) {
	_, err := New("s3://other/shop", bucket{}).Resolve(t.Context(), "latest")
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "there is no bucket other") {
		t.Errorf("got %v", err)
	}
}
