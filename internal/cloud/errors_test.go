package cloud

import (
	"errors"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		code, message string
		status        int
		kind          fault.Kind
		sentinel      error
	}{
		{"InvalidInstanceID.NotFound", "", 400, fault.NotFound, ErrNotFound},
		{"InvalidAMIID.NotFound", "", 400, fault.NotFound, ErrNotFound},
		{"ValidationError", "Stack with id x does not exist", 400, fault.NotFound, ErrNotFound},
		{"ValidationError", "Template format error: unsupported structure", 400, fault.Invalid, nil},
		{"ValidationError", "AutoScalingGroup name not found - x", 400, fault.NotFound, ErrNotFound},
		{"NoSuchKey", "", 404, fault.NotFound, ErrNotFound},
		{"NotFound", "", 404, fault.NotFound, ErrNotFound},
		{"TargetGroupNotFound", "", 400, fault.NotFound, ErrNotFound},
		{"Throttling", "Rate exceeded", 400, fault.Unavailable, ErrThrottled},
		{"RequestLimitExceeded", "", 503, fault.Unavailable, ErrThrottled},
		{"InsufficientInstanceCapacity", "", 500, fault.Unavailable, ErrCapacity},
		{"VcpuLimitExceeded", "", 400, fault.Unavailable, ErrCapacity},
		{"UnauthorizedOperation", "", 403, fault.Denied, nil},
		{"AccessDenied", "", 403, fault.Denied, nil},
		{"InvalidClientTokenId", "", 403, fault.Denied, nil},
		{"AlreadyExistsException", "", 400, fault.Conflict, nil},
		{"InvalidAMIName.Duplicate", "", 400, fault.Conflict, nil},
		{"DependencyViolation", "", 400, fault.Conflict, nil},
		{"IdempotentParameterMismatch", "", 400, fault.Conflict, nil},
		{"InvalidInstanceId", "not in a valid state for account", 400, fault.Unavailable, nil},
		{"InternalError", "", 500, fault.Unavailable, nil},
		{"SomethingNew", "", 503, fault.Unavailable, nil},
		{"SomethingNew", "", 400, fault.Failed, nil},
		{"InvalidParameterValue", "", 400, fault.Invalid, nil},
		{"NotImplemented", "", 501, fault.Failed, nil},
	} {
		kind, _, sentinel := classify(c.code, c.message, c.status)
		if kind != c.kind || !errors.Is(sentinel, c.sentinel) {
			t.Errorf("%s (%d, %q) is %s, %v; want %s, %v", c.code, c.status, c.message, kind, sentinel, c.kind, c.sentinel)
		}
	}
}
