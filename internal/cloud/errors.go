package cloud

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// What loops ask an error for (errors.Is).
var (
	ErrNotFound  = errors.New("it is not there")
	ErrThrottled = errors.New("the cloud limits our requests")
	ErrCapacity  = errors.New("the cloud has no capacity for this") // elsewhere or later
)

var (
	capacityCodes = []string{
		"InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity", "InsufficientCapacity",
		"VcpuLimitExceeded", "UnfulfillableCapacity", "InsufficientFreeAddressesInSubnet", "InstanceLimitExceeded",
		"MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "Unsupported",
	}
	deniedCodes = []string{
		"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch",
		"ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
		"IncompleteSignature", "OptInRequired", "InvalidAccessKeyId", "NotAuthorized", "RequestExpired", "Forbidden",
	}
	notFoundCodes = []string{
		"NotFound", "NoSuchKey", "NoSuchBucket", "NoSuchEntity", "NoSuchUpload", "ParameterNotFound", "TargetGroupNotFound", "ListenerNotFound", "LoadBalancerNotFound",
		"RuleNotFound", "InvocationDoesNotExist", "StackNotFoundException", "ChangeSetNotFound", "InvalidCommandId", "InvalidAMIID.Unavailable",
	}
	conflictCodes = []string{
		"AlreadyExistsException", "AlreadyExists", "EntityAlreadyExists", "IdempotentParameterMismatch", "TokenAlreadyExistsException", "DependencyViolation",
		"IncorrectInstanceState", "IncorrectState", "ResourceInUse", "ResourceInUseFault", "ResourceContention", "ScalingActivityInProgress",
		"BucketAlreadyExists", "BucketNotEmpty", "OperationAborted", "InvalidSnapshot.InUse", "DeleteConflict",
	}
	// InvalidInstanceId is Systems Manager's word for "not registered (yet)".
	laterCodes = []string{"InvalidInstanceId", "ServiceUnavailable", "Unavailable", "InternalError", "InternalFailure", "InternalServerError", "RequestTimeout", "SlowDown"}
)

// cause keeps the SDK's error and our word for it under the fault, and shows
// the same sentence.
type cause struct {
	text string
	errs []error
}

func (c *cause) Error() string   { return c.text }
func (c *cause) Unwrap() []error { return c.errs }

// NoCapacity tells whether a sentence of AWS, such as a scaling activity's, is
// about capacity that is not there.
func NoCapacity(message string) bool {
	for _, s := range append([]string{"sufficient capacity", "do not have sufficient", "vCPU capacity than your current", "more instances than your current", "enough free addresses", "insufficient free addresses", "not supported in your requested Availability Zone"}, capacityCodes...) {
		if s != "Unsupported" && strings.Contains(message, s) {
			return true
		}
	}
	return false
}

// translate makes the fault that people see of an SDK error.
func translate(op, object string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err // ours already, such as the guard's
	}
	f := &fault.Error{Kind: fault.Failed, Op: op, Object: object, Message: err.Error()}
	errs := []error{err}
	api, isAPI := errors.AsType[smithy.APIError](err)
	switch {
	case errors.Is(err, context.Canceled):
		f.Kind, f.Message = fault.Unavailable, "the call was given up: "+context.Canceled.Error()
	case isAPI:
		f.Code, f.Message = api.ErrorCode(), api.ErrorMessage()
		if f.Message == "" {
			f.Message = f.Code
		}
		var sentinel error
		f.Kind, f.Hint, sentinel = classify(f.Code, f.Message, statusOf(err))
		if sentinel != nil {
			errs = append(errs, sentinel)
		}
	case errors.Is(err, context.DeadlineExceeded):
		f.Kind, f.Message, f.Hint = fault.Unavailable, "no answer in time", "is the region running? dayfly region status"
	case statusOf(err) >= 500:
		f.Kind = fault.Unavailable
	case noConnection(err):
		f.Kind, f.Message, f.Hint = fault.Unavailable, "no connection: "+inner(err).Error(), "is the region running? dayfly region status"
	case isCredentials(err):
		f.Kind, f.Message, f.Hint = fault.Denied, "there are no AWS credentials: "+inner(err).Error(), `eval "$(dayfly region env)" for the local region, or configure AWS's`
	}
	f.Err = &cause{text: f.Message, errs: errs}
	return f
}

func classify(code, message string, status int) (kind fault.Kind, hint string, sentinel error) {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	switch {
	case throttled:
		return fault.Unavailable, "the platform tries again by itself", ErrThrottled
	case slices.Contains(capacityCodes, code):
		return fault.Unavailable, "another zone or instance type may have room", ErrCapacity
	case slices.Contains(deniedCodes, code):
		return fault.Denied, "check the credentials and their policies", nil
	case code == "NotImplemented" || code == "InvalidAction" || status == http.StatusNotImplemented:
		return fault.Failed, "the region does not offer this operation", nil
	case absent(code, message, status):
		return fault.NotFound, "", ErrNotFound
	case slices.Contains(conflictCodes, code), strings.HasSuffix(code, ".Duplicate"), strings.HasSuffix(code, "AlreadyExists"):
		return fault.Conflict, "", nil
	case slices.Contains(laterCodes, code), status >= 500:
		return fault.Unavailable, "", nil
	case status == http.StatusConflict:
		return fault.Conflict, "", nil
	case strings.HasPrefix(code, "Invalid"), strings.HasPrefix(code, "Validation"), strings.HasPrefix(code, "Malformed"), strings.HasPrefix(code, "Missing"),
		strings.HasPrefix(code, "Unknown"), code == "InsufficientCapabilitiesException", strings.HasSuffix(code, "SizeExceeded"), strings.HasSuffix(code, "TooLarge"):
		return fault.Invalid, "", nil
	}
	return fault.Failed, "", nil
}

// absent knows the ways in which AWS says that a thing is not there.
func absent(code, message string, status int) bool {
	if slices.Contains(notFoundCodes, code) || strings.HasSuffix(code, ".NotFound") || strings.HasSuffix(code, ".Malformed") && strings.Contains(message, "does not exist") {
		return true
	}
	if code == "ValidationError" { // CloudFormation, Auto Scaling
		return strings.Contains(message, "does not exist") || strings.Contains(message, "not found")
	}
	return status == http.StatusNotFound
}

func statusOf(err error) int {
	if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && r.Response != nil {
		return r.Response.StatusCode
	}
	return 0
}

func noConnection(err error) bool {
	if _, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*aws.RequestCanceledError](err); ok {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

func isCredentials(err error) bool {
	s := err.Error()
	return strings.Contains(s, "get credentials") || strings.Contains(s, "refresh cached credentials") || strings.Contains(s, "static credentials are empty")
}

// inner is the error at the bottom: the SDK wraps it in many sentences.
func inner(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		if _, ok := next.(*net.OpError); ok {
			return next
		}
		err = next
	}
}

// throttled tells whether the cloud refused a request as one too many.
func throttled(err error) bool {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		_, yes := retry.DefaultThrottleErrorCodes[api.ErrorCode()]
		return yes
	}
	return false
}

// definite tells whether a failed call surely had no effect: the cloud itself
// refused it, and this was its only request.
func definite(err error, requests int) bool {
	if requests != 1 {
		return requests == 0
	}
	if throttled(err) || errors.Is(err, ErrCapacity) { // EC2 says so with the status 503 or 500
		return true
	}
	if _, ok := errors.AsType[smithy.APIError](err); !ok {
		return false
	}
	status := statusOf(err)
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout
}

// isNotFound tells whether the cloud said that the thing is not there.
func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
