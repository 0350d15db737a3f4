package ec2

import (
	"iter"
	"maps"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// query is one Describe call about objects of type T.
type query[T any] struct {
	ids     []string
	filters []*ec2api.Filter
	max     *int64
	token   string
	dry     *bool
	least   int64 // of MaxResults; 5 where zero
	most    int64 // 1000 where zero

	fields  filter.Fields[*T]
	id      func(*T) string
	idIs    string                // the filter that names ids; "" where there is none
	missing func(id string) error // of an id that is not there
}

// run answers from every object, or from get where ids were asked for. It is
// called inside a view.
func (q query[T]) run(all iter.Seq[*T], get func(id string) *T) (page []*T, next string, err error) {
	if err := dry(q.dry); err != nil {
		return nil, "", err
	}
	match, err := q.fields.Compile(q.filters)
	if err != nil {
		return nil, "", err
	}
	if len(q.ids) > 1000 {
		return nil, "", wire.Errorf("InvalidParameterValue", "At most 1000 ids may be named in one call")
	}
	var out []*T
	if len(q.ids) > 0 {
		ids := slices.Compact(slices.Sorted(slices.Values(q.ids)))
		for _, id := range ids {
			o := get(id)
			if o == nil {
				return nil, "", q.missing(id)
			}
			if match(o) {
				out = append(out, o)
			}
		}
	} else if ids := q.named(); ids != nil {
		for _, id := range ids {
			if o := get(id); o != nil && match(o) {
				out = append(out, o)
			}
		}
	} else {
		for o := range all {
			if match(o) {
				out = append(out, o)
			}
		}
	}
	least, most := q.least, q.most
	if least == 0 {
		least = 5
	}
	if most == 0 {
		most = 1000
	}
	return filter.Page(out, q.id, q.max, least, most, q.token)
}

// named are the ids that a filter asks for; nil when it does not say which they
// are, so that all objects have to be looked at.
func (q query[T]) named() []string {
	for _, f := range q.filters {
		if f != nil && q.idIs != "" && f.Name == q.idIs && !slices.ContainsFunc(f.Values, func(v string) bool { return !filter.Literal(v) }) {
			return slices.Compact(slices.Sorted(slices.Values(f.Values)))
		}
	}
	return nil
}

// list answers a query about the objects of one table. What view gives as nil is
// not in the answer.
func list[T, V any](tx *state.Tx, q query[V], t *state.Table[T], view func(T) *V) ([]*V, string, error) {
	return q.run(func(yield func(*V) bool) {
		for _, o := range t.All(tx) {
			if v := view(o); v != nil && !yield(v) {
				return
			}
		}
	}, func(id string) *V {
		o, ok := t.Get(tx, id)
		if !ok {
			return nil
		}
		return view(o)
	})
}

// sorted yields a map's objects by key.
func sorted[T any](m map[string]*T) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(m[k]) {
				return
			}
		}
	}
}
