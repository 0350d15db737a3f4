package kernel

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	mdnetlink "github.com/mdlayher/netlink"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// image is a whole rule set as data: what a VPC's table should contain. Two of
// them can be compared, so that a change of members only is a transaction of
// set elements, and everything else replaces the table in one transaction.
type image struct {
	table  string
	sig    string // of what the chains contain
	sets   []*setImage
	chains []*chainImage
}

type setImage struct {
	name     string
	key, val nftables.SetDatatype // val.Name == "" is a set, else a map
	elems    map[string]elem      // by key
}

type elem struct {
	value   string // compared
	element nftables.SetElement
}

type chainImage struct {
	name  string
	kind  nftables.ChainType // "" is a chain to jump to
	hook  *nftables.ChainHook
	prio  nftables.ChainPriority
	rules [][]expr.Any
}

func (i *image) set(name string, key, val nftables.SetDatatype) *setImage {
	s := &setImage{name: name, key: key, val: val, elems: map[string]elem{}}
	i.sets = append(i.sets, s)
	return s
}

func (s *setImage) add(key []byte) {
	s.elems[string(key)] = elem{element: nftables.SetElement{Key: key}}
}

func (s *setImage) addValue(key, val []byte) {
	s.elems[string(key)] = elem{value: string(val), element: nftables.SetElement{Key: key, Val: val}}
}

func (s *setImage) addGoto(key []byte, chain string) {
	s.elems[string(key)] = elem{value: chain, element: nftables.SetElement{
		Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

func (i *image) chain(name string) *chainImage {
	c := &chainImage{name: name}
	i.chains = append(i.chains, c)
	return c
}

// base adds a chain on a hook. Its policy is accept, and its last rule drops:
// so a replacement in flight, where for a moment an old and a new chain with no
// active rules are on the hook, drops nothing.
func (i *image) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio nftables.ChainPriority) *chainImage {
	c := i.chain(name)
	c.kind, c.hook, c.prio = kind, hook, prio
	return c
}

func (c *chainImage) rule(parts ...[]expr.Any) { c.rules = append(c.rules, slices.Concat(parts...)) }

// elements at most in one message: its length is 16 bits.
const elemsPerMessage = 256

func (s *setImage) nft(t *nftables.Table) *nftables.Set {
	set := &nftables.Set{Table: t, Name: s.name, KeyType: s.key}
	if s.val.Name != "" {
		set.IsMap, set.DataType = true, s.val
	}
	return set
}

// write puts the image in place of old in one transaction; old nil is unknown.
func (i *image) write(fd int, old *image) error {
	if old != nil && old.sig == i.sig && len(old.sets) == len(i.sets) {
		if err := i.writeElements(fd, old); err == nil {
			return nil
		}
		// What the kernel has is not what we thought: replace all of it.
	}
	c, err := conn(fd)
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: i.table}
	c.AddTable(t) // so that the deletion finds one
	c.DelTable(t)
	c.AddTable(t)
	chains := make([]*nftables.Chain, len(i.chains))
	for k, ch := range i.chains {
		chains[k] = &nftables.Chain{Table: t, Name: ch.name}
		if ch.kind != "" {
			chains[k].Type, chains[k].Hooknum, chains[k].Priority = ch.kind, ch.hook, &ch.prio
			chains[k].Policy = new(nftables.ChainPolicyAccept)
		}
		c.AddChain(chains[k])
	}
	for _, s := range i.sets {
		set := s.nft(t)
		if err := c.AddSet(set, nil); err != nil {
			return fmt.Errorf("nft set %s: %w", s.name, err)
		}
		if err := addElements(c, set, sortedElements(s.elems, nil)); err != nil {
			return err
		}
	}
	for k, ch := range i.chains {
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: chains[k], Exprs: r})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nft: replace table %s: %w", i.table, err)
	}
	return nil
}

func (i *image) writeElements(fd int, old *image) error {
	c, err := conn(fd)
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: i.table}
	changed := false
	// All deletions first: a map's element may move, and chains are no part.
	for k, s := range i.sets {
		if old.sets[k].name != s.name {
			return errors.New("nft: the sets differ")
		}
		gone := sortedElements(old.sets[k].elems, s.elems)
		for part := range slices.Chunk(gone, elemsPerMessage) {
			changed = true
			if err := c.SetDeleteElements(s.nft(t), part); err != nil {
				return err
			}
		}
	}
	for k, s := range i.sets {
		more := sortedElements(s.elems, old.sets[k].elems)
		changed = changed || len(more) > 0
		if err := addElements(c, s.nft(t), more); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return c.Flush()
}

func addElements(c *nftables.Conn, s *nftables.Set, es []nftables.SetElement) error {
	for part := range slices.Chunk(es, elemsPerMessage) {
		if err := c.SetAddElements(s, part); err != nil {
			return fmt.Errorf("nft set %s: %w", s.Name, err)
		}
	}
	return nil
}

// sortedElements are a's elements that are not the same in b.
func sortedElements(a, b map[string]elem) []nftables.SetElement {
	var out []nftables.SetElement
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if o, ok := b[k]; !ok || o.value != a[k].value {
			out = append(out, a[k].element)
		}
	}
	return out
}

func conn(fd int) (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(fd), nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
		// A transaction is one message: large ones need the room.
		if err := c.SetWriteBuffer(16 << 20); err != nil {
			return err
		}
		return c.SetReadBuffer(16 << 20)
	}))
}
