// Package balancer is the port between the region's load balancing service and
// what moves requests: balancer/haproxy (a process per VPC that outlives the
// region's daemon) and balancer/sim. It knows listeners, pools of servers,
// weights and checks; it must not know ELBv2 or Auto Scaling.
package balancer

import (
	"context"
	"net/netip"
	"time"
)

// Config is all that one VPC's balancers do. Apply makes it so.
type Config struct {
	VPC       string
	Frontends []Frontend
	Pools     []Pool
}

// Frontend is a listener of a load balancer on one address.
type Frontend struct {
	ID      string // stable and unique in the VPC; a safe name ([A-Za-z0-9_-])
	Address netip.AddrPort
	HTTP    bool // else TCP
	Rules   []Rule
	Default Action
	Idle    time.Duration // idle timeout, 0 = 60 s
}

// Rule is a listener rule; the first that matches decides.
type Rule struct {
	Paths []string // ALB patterns with * and ?, any of them; nil = any path
	Hosts []string
	Action
}

// Action is a weighted forward, or a fixed answer where Forward is empty.
type Action struct {
	Forward []Weighted
	Status  int // fixed response; 0 with an empty Forward = 503
	Body    string
	Type    string // content type
}

// Weighted is a pool's share of the requests; all weights 0 answers 503.
type Weighted struct {
	Pool   string
	Weight int // 0 to 999
}

// Pool is a target group.
type Pool struct {
	ID      string // a safe name
	HTTP    bool
	Check   Check
	Servers []Server
	Slots   int           // servers to expect at most; 0 = what is best
	Drain   time.Duration // how long a removed server may finish its requests
}

// Check is a health check.
type Check struct {
	Path     string // "" = connect only
	Port     int    // 0 = the server's
	Interval time.Duration
	Timeout  time.Duration
	Rise     int // checks in a row, after the first success of a new server, which counts alone, as on ALB
	Fall     int
	Status   string // expected, ALB's matcher: "200", "200-299", "200,302"
}

// Server is a target.
type Server struct {
	ID       string
	Address  netip.AddrPort
	Draining bool // gets no new connections, keeps those it has
}

// Health of a server.
type Health string

const (
	Initial   Health = "initial"   // not checked yet
	Healthy   Health = "healthy"   //
	Unhealthy Health = "unhealthy" //
	Draining  Health = "draining"  // still has requests, or its drain time is not over
	Unused    Health = "unused"    // its pool is in no frontend: never checked
)

// ServerHealth is what Health returns.
type ServerHealth struct {
	Pool, Server string
	Health       Health
	Sessions     int    // now
	Detail       string // why unhealthy: "HTTP 500", "connection refused", "timeout"
}

// Stats counts a pool's requests since its balancer started.
type Stats struct {
	Pool                             string
	Requests, Status2xx, Status3xx   int64
	Status4xx, Status5xx, ConnErrors int64
	// Took is how long the servers took until they began to answer, of all
	// requests together; it may begin anew with the daemon.
	Took time.Duration
}

// Balancer moves requests. Apply changes only what differs and loses no
// connection; what runs outlives the process and is adopted by a new one.
type Balancer interface {
	Apply(ctx context.Context, c Config) error
	// Remove ends a VPC's balancing. Unknown VPCs are no error.
	Remove(ctx context.Context, vpc string) error
	Health(ctx context.Context, vpc string) ([]ServerHealth, error)
	Stats(ctx context.Context, vpc string) ([]Stats, error)
	// VPCs lists what runs, for the sweep after a crash.
	VPCs(ctx context.Context) ([]string, error)
	Close() error
}
