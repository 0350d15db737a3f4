package wire

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
)

// Handler runs one operation: in is what Operation.Input made, out what
// Operation.Output would make (a pointer), or nil.
type Handler func(ctx context.Context, in any) (out any, err error)

// Bus holds the services of a region. Services call one another through it,
// by service and operation name with the generated types, exactly as over the
// network but without a network: nobody imports another service's package.
type Bus struct {
	services map[string]*service
}

type service struct {
	model    Model
	handlers map[string]Handler
}

// NewBus returns an empty bus.
func NewBus() *Bus { return &Bus{services: map[string]*service{}} }

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
)

// Register takes every method of impl that has an operation's name and the
// form func(context.Context, *Input) (*Output, error), or, where the operation
// answers nothing, func(context.Context, *Input) error. An exported method with
// an operation's name and another form is a programming error and panics, so
// that a typo is seen at start and not by a user.
func (b *Bus) Register(m Model, impl any) {
	s := &service{model: m, handlers: map[string]Handler{}}
	v := reflect.ValueOf(impl)
	for name, op := range m.Operations {
		meth := v.MethodByName(name)
		if !meth.IsValid() {
			continue
		}
		t := meth.Type()
		in := reflect.TypeOf(op.Input())
		ok := t.NumIn() == 2 && t.In(0) == contextType && t.In(1) == in && t.NumOut() >= 1 && t.Out(t.NumOut()-1) == errorType
		if ok && t.NumOut() == 2 {
			ok = op.Output != nil && t.Out(0) == reflect.TypeOf(op.Output())
		}
		if !ok || t.NumOut() > 2 {
			panic(fmt.Sprintf("wire: %T.%s has the form %s, which is not the operation's", impl, name, t))
		}
		s.handlers[name] = func(ctx context.Context, in any) (any, error) {
			r := meth.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(in)})
			err, _ := r[len(r)-1].Interface().(error)
			if err != nil || len(r) == 1 {
				return nil, err
			}
			return r[0].Interface(), nil
		}
	}
	b.services[m.Name] = s
}

// Call runs an operation of another service in process.
//
//	out, err := wire.Call[ec2api.Reservation](ctx, bus, "ec2", "RunInstances", &ec2api.RunInstancesRequest{…})
//
// Out is the operation's output type; for an operation without output use
// struct{} and expect nil.
func Call[Out any](ctx context.Context, b *Bus, svc, op string, in any) (*Out, error) {
	out, err := b.Invoke(ctx, svc, op, in)
	if err != nil {
		return nil, err
	}
	o, _ := out.(*Out)
	return o, nil
}

// Invoke is Call without types.
func (b *Bus) Invoke(ctx context.Context, svc, op string, in any) (any, error) {
	s := b.services[svc]
	if s == nil {
		return nil, &Error{Code: "ServiceUnavailable", Message: "the region has no service " + svc, Status: http.StatusNotImplemented}
	}
	h := s.handlers[op]
	if h == nil {
		return nil, s.missing(op)
	}
	return h(ctx, in)
}

func (s *service) missing(op string) *Error {
	if slices.Contains(s.model.Known, op) {
		return &Error{Code: "NotImplemented", Message: "the local region does not implement " + s.model.Name + ":" + op, Status: http.StatusNotImplemented}
	}
	return &Error{Code: "InvalidAction", Message: "the action " + op + " is not valid for this web service", Status: http.StatusBadRequest}
}

// Services names the services on the bus, sorted.
func (b *Bus) Services() []string {
	return slices.Sorted(maps.Keys(b.services))
}
