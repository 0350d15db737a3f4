// Command shop is the demo's application: a page, an orders API whose orders
// are on disk, and what a load balancer wants to know.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var prices = map[string]int{"lamp": 2900, "chair": 7900, "table": 19900} // cents

const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Shop</title><h1>Shop</h1><p>Lamps, chairs, tables.</p></html>
`

func main() {
	listen, data := ":8080", "/srv/shop/data"
	if raw, err := os.ReadFile("/etc/shop/shop.conf"); err == nil {
		for line := range strings.Lines(string(raw)) {
			switch k, v, _ := strings.Cut(line, "="); strings.TrimSpace(k) {
			case "listen":
				listen = strings.TrimSpace(v)
			case "data":
				data = strings.TrimSpace(v)
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	version, err := os.ReadFile(filepath.Join(filepath.Dir(self), "../VERSION"))
	if err != nil {
		log.Fatal(err)
	}
	s := &shop{dir: data, version: strings.TrimSpace(string(version)), instance: os.Getenv("DAYFLY_INSTANCE_ID")}
	h := &http.Server{Addr: listen, Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = h.Shutdown(end)
	}()
	log.Printf("shop %s listens on %s", s.version, listen)
	if err := h.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

type shop struct{ dir, version, instance string }

type order struct {
	ID    string `json:"id"`
	Item  string `json:"item"`
	Count int    `json:"count"`
	Total int    `json:"total"` // cents
}

func (s *shop) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, page)
	})
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	m.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"version": s.version, "instance": s.instance})
	})
	m.HandleFunc("POST /orders", s.create)
	m.HandleFunc("GET /orders/{id}", s.read)
	return m
}

func (s *shop) create(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&o); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "the order is not JSON"})
		return
	}
	price, ok := prices[o.Item]
	if !ok || o.Count < 1 || o.Count > 1000 {
		answer(w, http.StatusUnprocessableEntity, map[string]string{"error": "an order has an item that we sell and a count from 1 to 1000"})
		return
	}
	o.ID, o.Total = fmt.Sprintf("%x", time.Now().UnixNano()), price*o.Count
	raw, _ := json.Marshal(o)
	tmp := filepath.Join(s.dir, o.ID+".tmp")
	if err := errors.Join(os.WriteFile(tmp, raw, 0o600), os.Rename(tmp, filepath.Join(s.dir, o.ID+".json"))); err != nil {
		log.Print(err)
		answer(w, http.StatusInternalServerError, map[string]string{"error": "the order could not be kept"})
		return
	}
	answer(w, http.StatusCreated, o)
}

func (s *shop) read(w http.ResponseWriter, r *http.Request) {
	raw, err := os.ReadFile(filepath.Join(s.dir, filepath.Base(r.PathValue("id"))+".json"))
	if err != nil {
		answer(w, http.StatusNotFound, map[string]string{"error": "there is no such order here"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
