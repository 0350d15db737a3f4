package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/schemas"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	"github.com/aws/smithy-go/transport/http/protocol/awsquery"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	// callTimeout bounds one operation with all its retries; objects have
	// longer, by their size.
	callTimeout = time.Minute
	attempts    = 4
	maxBackoff  = 3 * time.Second
)

// Config of a Driver.
type Config struct {
	Region      string                  // empty: what the SDK's default chain says
	Endpoint    string                  // empty: AWS itself
	Credentials aws.CredentialsProvider // nil: the SDK's default chain
	HTTPClient  aws.HTTPClient          // nil: the SDK's own
	Owner       string                  // this installation's id: lower-case letters, digits, dashes; at most 20
	Store       store.Store             // of intents
	Clock       clock.Clock
	Log         *slog.Logger
	// Epoch is the fencing epoch that a context carries; nil means none.
	Epoch   func(context.Context) int64
	Limiter Limiter // nil: none
	// Figures is how long the periods of a load balancer's figures are, which
	// AWS has by the minute; 0 is that.
	Figures time.Duration
	// Answered is told of each request; nil tells nobody.
	Answered func(op string, err error, throttled bool, took time.Duration)
}

// Driver is the platform's access to AWS or to a local region.
type Driver struct {
	cfg Config
	cfn *cloudformation.Client
	ec2 *ec2.Client
	asg *autoscaling.Client
	elb *elb.Client
	cw  *cloudwatch.Client
	ssm *ssm.Client
	s3  *s3.Client
	sts *sts.Client

	mu       sync.Mutex // for all below
	identity *sts.GetCallerIdentityOutput
	bucketUp bool            // the bucket is known to be there
	acting   map[string]bool // intents whose call is under way
}

var ownerForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// New makes a driver; it makes no call.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	bad := func(message string) error {
		return &fault.Error{Kind: fault.Invalid, Op: "configure the cloud", Message: message}
	}
	switch {
	case !ownerForm.MatchString(cfg.Owner):
		return nil, bad(fmt.Sprintf("the owner %q is not 1 to 20 lower-case letters, digits and dashes", cfg.Owner))
	case cfg.Store == nil:
		return nil, bad("there is no store for intents")
	case cfg.Endpoint != "" && !strings.HasPrefix(cfg.Endpoint, "http://") && !strings.HasPrefix(cfg.Endpoint, "https://"):
		return nil, bad(fmt.Sprintf("the endpoint %q is not an http(s) URL", cfg.Endpoint))
	}
	if cfg.Figures == 0 {
		cfg.Figures = time.Minute
	}
	if f := cfg.Figures; f != 5*time.Second && f != 10*time.Second && f != 30*time.Second && (f < time.Minute || f%time.Minute != 0 || f > time.Hour) {
		return nil, bad(fmt.Sprintf("a load balancer's figures come in periods of 5s, 10s, 30s or whole minutes up to an hour, not of %s", f))
	}
	cfg.Endpoint = strings.TrimSuffix(cfg.Endpoint, "/")
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Epoch == nil {
		cfg.Epoch = func(context.Context) int64 { return store.NoEpoch }
	}
	options := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts = attempts
				o.MaxBackoff = maxBackoff
				// Nobody listens: the caller learns it at once, and comes again.
				o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
					if errors.Is(err, syscall.ECONNREFUSED) {
						return aws.FalseTernary
					}
					return aws.UnknownTernary
				})}, o.Retryables...)
			})
		}),
		config.WithLogger(logging.Nop{}), // errors come back as errors
	}
	if cfg.Region != "" {
		options = append(options, config.WithRegion(cfg.Region))
	}
	if cfg.Endpoint != "" {
		options = append(options, config.WithBaseEndpoint(cfg.Endpoint))
	}
	if cfg.Credentials != nil {
		options = append(options, config.WithCredentialsProvider(cfg.Credentials))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "configure the cloud", Message: "the AWS configuration cannot be read", Err: err}
	}
	if cfg.HTTPClient != nil { // not as an option: it brings its own trust, whatever AWS_CA_BUNDLE says
		c.HTTPClient = cfg.HTTPClient
	}
	if c.Region == "" {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "configure the cloud", Message: "no region is named", Hint: "set AWS_REGION"}
	}
	cfg.Region = c.Region
	d := &Driver{cfg: cfg, acting: map[string]bool{}}
	d.cfn = cloudformation.NewFromConfig(c, func(o *cloudformation.Options) { o.APIOptions = append(o.APIOptions, d.guard("cloudformation")) })
	d.ec2 = ec2.NewFromConfig(c, func(o *ec2.Options) { o.APIOptions = append(o.APIOptions, d.guard("ec2")) })
	d.asg = autoscaling.NewFromConfig(c, func(o *autoscaling.Options) { o.APIOptions = append(o.APIOptions, d.guard("autoscaling")) })
	d.elb = elb.NewFromConfig(c, func(o *elb.Options) { o.APIOptions = append(o.APIOptions, d.guard("elasticloadbalancing")) })
	d.cw = cloudwatch.NewFromConfig(c, func(o *cloudwatch.Options) {
		o.APIOptions = append(o.APIOptions, d.guard("cloudwatch"))
		o.Protocol = awsquery.New(schemas.GraniteServiceVersion20100801) // which the local region speaks as well
	})
	d.ssm = ssm.NewFromConfig(c, func(o *ssm.Options) { o.APIOptions = append(o.APIOptions, d.guard("ssm")) })
	d.sts = sts.NewFromConfig(c, func(o *sts.Options) { o.APIOptions = append(o.APIOptions, d.guard("sts")) })
	d.s3 = s3.NewFromConfig(c, func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, d.guard("s3"))
		o.UsePathStyle = cfg.Endpoint != ""
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	return d, nil
}

// Region is the region's name.
func (d *Driver) Region() string { return d.cfg.Region }

// Owner is this installation's id, the value of TagOwner.
func (d *Driver) Owner() string { return d.cfg.Owner }

// Identity tells as whom the driver speaks.
func (d *Driver) Identity(ctx context.Context) (account, arn string, err error) {
	d.mu.Lock()
	known := d.identity
	d.mu.Unlock()
	if known == nil {
		ctx, cancel := limit(ctx)
		defer cancel()
		known, err = d.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return "", "", translate("sts:GetCallerIdentity", "", err)
		}
		d.mu.Lock()
		d.identity = known
		d.mu.Unlock()
	}
	return aws.ToString(known.Account), aws.ToString(known.Arn), nil
}

func limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

type (
	actKey   struct{}
	countKey struct{}
	wholeKey struct{}
)

// act is what travels with a mutating call.
type act struct {
	requests int // HTTP requests that were made in its name
}

// counted tells the limiter how many things a call is about.
func counted(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, countKey{}, n)
}

var readers = []string{"Describe", "Get", "List", "Head"}

// guard refuses mutating operations outside of an intent, so that no later
// change of this package can forget one, and asks the limiter.
func (d *Driver) guard(service string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		op := service + ":" + stack.ID()
		reads := false
		for _, r := range readers {
			reads = reads || strings.HasPrefix(stack.ID(), r)
		}
		err := stack.Initialize.Add(middleware.InitializeMiddlewareFunc("IntentGuard",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				if _, ok := ctx.Value(actKey{}).(*act); !ok && !reads {
					return middleware.InitializeOutput{}, middleware.Metadata{}, &fault.Error{Kind: fault.Internal, Op: op, Message: "the call changes something and has no intent"}
				}
				if service == "ec2" && reads && unfiltered(in.Parameters) {
					ctx = context.WithValue(ctx, wholeKey{}, true)
				}
				return next.HandleInitialize(ctx, in)
			}), middleware.Before)
		if err != nil {
			return err
		}
		return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("Limiter",
			func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
				op := op
				if ctx.Value(wholeKey{}) != nil {
					op += Unfiltered
				}
				if d.cfg.Limiter != nil {
					n, ok := ctx.Value(countKey{}).(int)
					if !ok || reads {
						n = 1
					}
					if err := d.cfg.Limiter.Wait(ctx, op, n); err != nil {
						return middleware.FinalizeOutput{}, middleware.Metadata{}, err
					}
				}
				if a, ok := ctx.Value(actKey{}).(*act); ok && !reads {
					a.requests++
				}
				began := d.cfg.Clock.Now()
				out, metadata, err := next.HandleFinalize(ctx, in)
				if d.cfg.Answered != nil {
					d.cfg.Answered(strings.TrimSuffix(op, Unfiltered), err, throttled(err), d.cfg.Clock.Now().Sub(began))
				}
				if d.cfg.Limiter != nil {
					d.cfg.Limiter.Answered(op, throttled(err))
				}
				return out, metadata, err
			}), "Retry", middleware.After)
	}
}

// unfiltered tells whether the input of a read names nothing, no filter and no
// page.
func unfiltered(input any) bool {
	v := reflect.Indirect(reflect.ValueOf(input))
	if v.Kind() != reflect.Struct {
		return false
	}
	for i := range v.NumField() {
		f := v.Field(i)
		switch name := v.Type().Field(i).Name; {
		case name == "MaxResults" || name == "NextToken":
			if !f.IsNil() {
				return false
			}
		case f.Kind() == reflect.Slice && f.Len() > 0: // Filters, InstanceIds, Owners
			return false
		}
	}
	return true
}

// Statically: the SDK's client is what we take.
var _ aws.HTTPClient = (*http.Client)(nil)
