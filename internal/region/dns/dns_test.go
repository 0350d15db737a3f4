package dns

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

type names map[string]string

func (n names) Name(vpc, name string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(n[vpc+" "+name])
	return a, err == nil
}

// upstream is a resolver of the world that counts questions.
func upstream(t *testing.T, asked *atomic.Int32) string {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg)
		m.SetReply(q)
		switch q.Question[0].Name {
		case "slow.example.":
			time.Sleep(upstreamFor + 500*time.Millisecond)
		case "none.example.":
			m.Rcode = dns.RcodeNameError
		case "big.example.":
			for i := range 200 {
				m.Answer = append(m.Answer, &dns.A{Hdr: header(q.Question[0].Name, dns.TypeA), A: net.IPv4(1, 2, 3, byte(i))})
			}
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				m.Truncate(512)
			}
		default:
			m.Answer = append(m.Answer, &dns.A{Hdr: header(q.Question[0].Name, dns.TypeA), A: net.IPv4(203, 0, 113, 9)})
		}
		w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

func serve(t *testing.T, cfg Config) (r *Resolver, addr string) {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.Serve("vpc-1", pc, l)
	t.Cleanup(func() { r.Close() })
	return r, pc.LocalAddr().String()
}

func TestAnswers(t *testing.T) {
	var asked atomic.Int32
	_, addr := serve(t, Config{
		Region: "local-1", Endpoint: netip.MustParseAddr("169.254.169.250"),
		Lookup: names{
			"vpc-1 i-0123456789abcdef0.local-1.compute.internal": "10.0.1.5",
			"vpc-1 db.corp.internal":                             "10.0.1.6",
			"vpc-2 other.corp.internal":                          "10.0.1.7",
			"vpc-1 web-1.local-1.elb.amazonaws.com":              "100.64.8.20",
		},
		Upstream: []string{upstream(t, &asked)},
	})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string // "" = no answer, NX = no such name
		asks  int32
	}{
		{"ec2.local-1.amazonaws.com.", dns.TypeA, "169.254.169.250", 0},
		{"EC2.Local-1.amazonaws.COM.", dns.TypeA, "169.254.169.250", 0},
		{"ssmmessages.local-1.amazonaws.com.", dns.TypeA, "169.254.169.250", 0},
		{"sts.amazonaws.com.", dns.TypeA, "169.254.169.250", 0},
		{"iam.amazonaws.com.", dns.TypeA, "169.254.169.250", 0},
		{"s3.amazonaws.com.", dns.TypeA, "169.254.169.250", 0},
		{"bucket.with.dots.s3.amazonaws.com.", dns.TypeA, "169.254.169.250", 0},
		{"bucket.s3.local-1.amazonaws.com.", dns.TypeA, "169.254.169.250", 0},
		{"ec2.local-1.amazonaws.com.", dns.TypeAAAA, "", 0},
		{"ec2.eu-west-1.amazonaws.com.", dns.TypeA, "203.0.113.9", 1},
		{"ip-10-0-1-5.local-1.compute.internal.", dns.TypeA, "10.0.1.5", 0},
		{"ip-10-0-1-500.local-1.compute.internal.", dns.TypeA, "NX", 0},
		{"ip-10-0-01-5.local-1.compute.internal.", dns.TypeA, "NX", 0},
		{"i-0123456789abcdef0.local-1.compute.internal.", dns.TypeA, "10.0.1.5", 0},
		{"i-0123456789abcdef1.local-1.compute.internal.", dns.TypeA, "NX", 0},
		{"db.corp.internal.", dns.TypeA, "10.0.1.6", 0},
		{"other.corp.internal.", dns.TypeA, "NX", 0},
		{"web-1.local-1.elb.amazonaws.com.", dns.TypeA, "100.64.8.20", 0},
		{"web-2.local-1.elb.amazonaws.com.", dns.TypeA, "NX", 0},
		{"5.1.0.10.in-addr.arpa.", dns.TypePTR, "ip-10-0-1-5.local-1.compute.internal.", 0},
		{"254.169.254.169.in-addr.arpa.", dns.TypePTR, "NX", 0},
		{"example.com.", dns.TypeA, "203.0.113.9", 1},
		{"none.example.", dns.TypeA, "NX", 1},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			before := asked.Load()
			q := new(dns.Msg)
			q.SetQuestion(c.name, c.qtype)
			m, _, err := (&dns.Client{Net: proto}).Exchange(q, addr)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			got := ""
			if m.Rcode == dns.RcodeNameError {
				got = "NX"
			}
			if len(m.Answer) > 0 {
				switch rr := m.Answer[0].(type) {
				case *dns.A:
					got = rr.A.String()
				case *dns.PTR:
					got = rr.Ptr
				}
			}
			if got != c.want || m.Id != q.Id {
				t.Errorf("%s %s over %s: %q, want %q", c.name, dns.TypeToString[c.qtype], proto, got, c.want)
			}
			if n := asked.Load() - before; n != c.asks {
				t.Errorf("%s: %d questions went upstream, want %d", c.name, n, c.asks)
			}
		}
	}
}

func TestForwarding(t *testing.T) {
	var asked atomic.Int32
	up := upstream(t, &asked)
	// The first does not exist; the resolver itself is never asked.
	_, addr := serve(t, Config{Region: "local-1", Endpoint: netip.MustParseAddr("169.254.169.250"),
		Upstream: []string{"169.254.169.253:53", "127.0.0.1:1", up}})
	q := new(dns.Msg)
	q.SetQuestion("big.example.", dns.TypeA)
	m, _, err := new(dns.Client).Exchange(q, addr)
	if err != nil || !m.Truncated {
		t.Errorf("a big answer over UDP: truncated=%t, %v", m != nil && m.Truncated, err)
	}
	m, _, err = (&dns.Client{Net: "tcp"}).Exchange(q, addr)
	if err != nil || len(m.Answer) != 200 {
		t.Errorf("a big answer over TCP: %v", err)
	}
	q.SetQuestion("slow.example.", dns.TypeA)
	m, _, err = (&dns.Client{Timeout: 10 * time.Second}).Exchange(q, addr)
	if err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a slow upstream: %v, %v", m, err)
	}
	q.SetQuestion("a.example.", dns.TypeA)
	q.Opcode = dns.OpcodeUpdate
	m, _, err = new(dns.Client).Exchange(q, addr)
	if err != nil || m.Rcode != dns.RcodeNotImplemented {
		t.Errorf("an update: %v, %v", m, err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	r, addr := serve(t, Config{Region: "local-1", Endpoint: netip.MustParseAddr("169.254.169.250"), Upstream: []string{}})
	c, err := net.Dial("tcp", addr) // an idle client
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan error, 1)
	go func() { done <- r.Close() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("Close hangs")
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the listener is still open")
	}
	pc, err := net.ListenPacket("udp4", addr)
	if err != nil {
		t.Errorf("the packet socket is still open: %v", err)
	} else {
		pc.Close()
	}
	r.Serve("vpc-1", nil, nil)
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{
		{},
		{Region: "local-1"},
		{Region: "LOCAL", Endpoint: netip.MustParseAddr("1.2.3.4")},
		{Region: "local-1", Endpoint: netip.MustParseAddr("1.2.3.4"), Upstream: []string{"dns.example:53"}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for i, s := range []string{"ec2.local-1.amazonaws.com.", "ip-1-2-3-4.local-1.compute.internal.", "4.3.2.1.in-addr.arpa.", "..", "ip-", ".internal."} {
		f.Add(s, uint16(i))
	}
	r, err := New(Config{Region: "local-1", Endpoint: netip.MustParseAddr("169.254.169.250"), Upstream: []string{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, qtype uint16) {
		q := new(dns.Msg)
		q.SetQuestion(name, qtype)
		m := r.own("vpc-1", q)
		if m == nil {
			return
		}
		for _, rr := range m.Answer {
			if fmt.Sprint(rr.Header().Name) != name {
				t.Errorf("%q answered as %q", name, rr.Header().Name)
			}
		}
	})
}
