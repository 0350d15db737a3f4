package provider

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Code is AWS's code of an error, "" where it has none.
func Code(err error) string {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return ""
}

// NotFound tells whether an error says that the thing is not there.
func NotFound(err error) bool {
	c := Code(err)
	if c == "" {
		return false
	}
	return strings.HasSuffix(c, "NotFound") || strings.HasSuffix(c, "NotFoundException") || strings.HasSuffix(c, ".NotFound") ||
		slices.Contains([]string{"NoSuchEntity", "ParameterNotFound", "Gateway.NotAttached", "InvalidNetworkAclEntry.NotFound"}, c) ||
		c == "ValidationError" && strings.Contains(err.Error(), "not found")
}

// Busy tells whether an error says that something else must go first.
func Busy(err error) bool {
	c := Code(err)
	return strings.HasSuffix(c, ".InUse") || slices.Contains([]string{
		"DependencyViolation", "ResourceInUse", "ResourceInUseException", "ResourceInUseFault", "DeleteConflict",
		"ScalingActivityInProgress", "ResourceContention", "IncorrectState", "IncorrectInstanceState", "OperationAborted",
		"RequestLimitExceeded", "Throttling",
	}, c)
}

// Words are an error in the words of a stack's events.
func Words(service string, err error) string {
	e, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return err.Error()
	}
	status := e.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	return fmt.Sprintf("%s (Service: %s; Status Code: %d; Error Code: %s)", e.Message, service, status, e.Code)
}

// gone makes nil of an error that says that the thing is not there.
func gone(err error) error {
	if NotFound(err) {
		return nil
	}
	return err
}
