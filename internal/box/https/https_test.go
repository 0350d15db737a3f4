package https

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/box/boxtest"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

func TestBox(t *testing.T) {
	boxtest.Run(t, func(t *testing.T, files map[string]string) box.Box {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, ok := files[strings.TrimPrefix(r.URL.Path, "/shop/")]
			if !ok {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return New(s.URL+"/shop/", http.DefaultClient)
	})
}

func TestBoxThatFails(t *testing.T) {
	for status, kind := range map[int]fault.Kind{500: fault.Unavailable, 503: fault.Unavailable, 403: fault.Denied, 302: fault.Failed} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		if _, err := New(s.URL, http.DefaultClient).Resolve(t.Context(), "latest"); fault.KindOf(err) != kind {
			t.Errorf("%d gave %v (%s), want %s", status, err, fault.KindOf(err), kind)
		}
		s.Close()
	}
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := New(s.URL, http.DefaultClient).Resolve(t.Context(), "latest")
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.HintOf(err), "curl") {
		t.Errorf("a box that is down gave %v", err)
	}
}
