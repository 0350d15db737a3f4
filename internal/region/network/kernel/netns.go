package kernel

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const nsfsMagic = 0x6e736673

// space is an open network namespace.
type space struct {
	file *os.File
	h    *netlink.Handle
}

func openSpace(path string) (*space, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open netlink in %s: %w", path, err)
	}
	return &space{file: f, h: h}, nil
}

func (s *space) close() {
	s.h.Close()
	s.file.Close()
}

func (s *space) fd() int { return int(s.file.Fd()) }

// isNetNS tells whether a path is a bind-mounted namespace.
func isNetNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfsMagic
}

// makeNS makes a namespace, binds it to path and runs fn on a thread inside it.
// What is at path already is replaced.
func makeNS(host *os.File, path string, fn func() error) error {
	return onThread(host, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if err := dropNS(path); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
		if err != nil {
			return err
		}
		f.Close()
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			os.Remove(path)
			return fmt.Errorf("bind a network namespace to %s: %w", path, err)
		}
		if fn == nil {
			return nil
		}
		return fn()
	})
}

// dropNS removes a bound namespace; the kernel ends it when nothing uses it.
func dropNS(path string) error {
	for isNetNS(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// inNS runs fn on a thread inside a namespace.
func inNS(host *os.File, fd int, fn func() error) error {
	return onThread(host, func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on a locked thread, which returns to the host's namespace
// afterwards or, if it can't, dies with its goroutine.
func onThread(host *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := fn()
		if back := unix.Setns(int(host.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// sysctl writes a setting in the calling thread's namespace.
func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
}

func readSysctl(name string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return strings.TrimSpace(string(b)), err
}

// linkName is a link's name from an id: at most 15 characters, as the kernel
// wants it.
func (n *Network) linkName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return n.cfg.Prefix + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:9]
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func host32(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// syncAddrs gives a link exactly the wanted addresses (and leaves 127.0.0.0/8
// alone); it returns those that are new.
func syncAddrs(h *netlink.Handle, index int, want []netip.Prefix) ([]netip.Addr, error) {
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
	have, err := h.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	need := map[netip.Prefix]bool{}
	for _, p := range want {
		need[p] = true
	}
	var old []netlink.Addr
	for _, a := range have {
		ip, _ := netip.AddrFromSlice(a.IP.To4())
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(ip, ones)
		switch {
		case need[p]:
			delete(need, p)
		case !ip.IsLoopback():
			old = append(old, a)
		}
	}
	var added []netip.Addr
	for _, p := range want { // in order: the first is the primary one
		if !need[p] {
			continue
		}
		delete(need, p)
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("add address %s: %w", p, err)
		}
		added = append(added, p.Addr())
	}
	for _, a := range old {
		if err := h.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	return added, nil
}
