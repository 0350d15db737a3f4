package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/operation"
)

const (
	maxScript  = 60_000 // bytes: Run Command keeps a document with its parameters below 64 KiB
	maxComment = 100    // characters, SSM's own limit
	// delivery is how long SSM waits for an instance to take a command.
	delivery = 120 * time.Second
)

// SendCommand hands a script to SSM Run Command and returns the command's id.
// SSM has no client token: the script is once-only on the instance by the
// intent's id, and the command is found again by its comment.
func (d *Driver) SendCommand(ctx context.Context, in Intent, c Command) (id string, err error) {
	const op = "ssm:SendCommand"
	if len(c.Script) > maxScript {
		return "", &fault.Error{Kind: fault.Invalid, Op: op, Object: c.Instance, Message: fmt.Sprintf("the script has %d bytes, at most %d are taken: larger things travel by object storage", len(c.Script), maxScript)}
	}
	if strings.ContainsRune(c.Script, 0) {
		return "", &fault.Error{Kind: fault.Invalid, Op: op, Object: c.Instance, Message: "the script holds a zero byte"}
	}
	mark := commandMark(in.ID)
	return perform(ctx, d, in, action[string]{
		op: op, input: c,
		find: func(ctx context.Context, _ *IntentRecord) (string, bool, error) {
			for p := ssm.NewListCommandsPaginator(d.ssm, &ssm.ListCommandsInput{InstanceId: &c.Instance}); p.HasMorePages(); {
				page, err := p.NextPage(ctx)
				if err != nil {
					return "", false, translate("ssm:ListCommands", c.Instance, err)
				}
				for _, found := range page.Commands {
					if comment := aws.ToString(found.Comment); comment == mark || strings.HasPrefix(comment, mark+": ") {
						return aws.ToString(found.CommandId), true, nil
					}
				}
			}
			return "", false, nil
		},
		call: func(ctx context.Context, _ *IntentRecord) (string, error) {
			comment := mark
			if room := maxComment - len(mark) - 2; c.Comment != "" && room > 0 {
				text := []rune(c.Comment)
				comment += ": " + string(text[:min(room, len(text))])
			}
			parameters := map[string][]string{"commands": {onceOnly(in.ID, operation.Of(ctx), c.Script)}}
			if c.Timeout > 0 {
				parameters["executionTimeout"] = []string{strconv.Itoa(max(1, int(c.Timeout/time.Second)))}
			}
			out, err := d.ssm.SendCommand(ctx, &ssm.SendCommandInput{
				DocumentName: new("AWS-RunShellScript"), InstanceIds: []string{c.Instance}, Comment: &comment, Parameters: parameters,
				TimeoutSeconds: new(int32(delivery / time.Second)),
			})
			if err != nil {
				return "", translate(op, c.Instance, err)
			}
			if out.Command == nil {
				return "", &fault.Error{Kind: fault.Internal, Op: op, Object: c.Instance, Message: "the answer names no command"}
			}
			return aws.ToString(out.Command.CommandId), nil
		},
	})
}

// commandMark is an intent's id as far as a comment has room for it.
func commandMark(id string) string {
	if len(id) <= 72 {
		return id
	}
	return "dayfly-" + commandName(id)
}

// commandName is the intent's id as a file name.
func commandName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// onceOnly wraps a script so that it runs once on an instance, however often it
// is delivered: a later delivery waits for the first and answers as it did.
// What a delivery that was cut off in the middle left is never run again.
func onceOnly(id, op, script string) string {
	name := commandName(id)
	run := "/bin/sh"
	if line, _, _ := strings.Cut(script, "\n"); strings.HasPrefix(line, "#!") {
		// As the kernel does it: one interpreter, at most one argument. The
		// file itself is not executed, /run may forbid that.
		program, argument, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
		if program != "" {
			run = quote(program)
		}
		if argument = strings.TrimSpace(argument); argument != "" {
			run += " " + quote(argument)
		}
	}
	if !strings.HasSuffix(script, "\n") {
		script += "\n"
	}
	end := "DAYFLY_" + name
	variable := ""
	if operation.Valid(op) { // in its environment, not in what is run: that is the same at each try
		variable = "export " + operation.Variable + "=" + op + "\n"
	}
	return `#!/bin/sh
# ` + id + `
d=/run/dayfly/commands/` + name + `
answer() { cat "$d/out"; cat "$d/err" >&2; exit "$(cat "$d/code")"; }
umask 077
mkdir -p /run/dayfly/commands || exit 125
if mkdir "$d" 2>/dev/null; then
echo $$ >"$d/pid"
` + variable + `trap 'cat "$d/out"; cat "$d/err" >&2; exit 143' TERM INT HUP
: >"$d/out"; : >"$d/err"
cat >"$d/script" <<'` + end + `'
` + script + end + `
umask 022
` + run + ` "$d/script" >"$d/out" 2>"$d/err" </dev/null
code=$?
echo "$code" >"$d/code.new" && mv "$d/code.new" "$d/code"
trap - TERM INT HUP
answer
fi
pause=0
while [ ! -s "$d/code" ]; do
p=$(cat "$d/pid" 2>/dev/null)
if [ -n "$p" ]; then kill -0 "$p" 2>/dev/null; cut=$?; else cut=$((pause >= 10)); fi
if [ "$cut" -ne 0 ] && [ ! -s "$d/code" ]; then
cat "$d/out" 2>/dev/null; cat "$d/err" >&2 2>/dev/null
echo "an earlier delivery of this command was cut off; it is not run again" >&2
exit 124
fi
pause=$((pause + 1))
sleep 1
done
answer
`
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// CommandResult reads how far a command is on an instance.
func (d *Driver) CommandResult(ctx context.Context, instance, id string) (CommandResult, error) {
	const op = "ssm:GetCommandInvocation"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.ssm.GetCommandInvocation(ctx, &ssm.GetCommandInvocationInput{CommandId: &id, InstanceId: &instance})
	if err != nil {
		err = translate(op, instance+" "+id, err)
		if fault.CodeOf(err) != "InvocationDoesNotExist" {
			return CommandResult{}, err
		}
		// For a moment after SendCommand the command is there and its
		// invocation is not.
		list, lerr := d.ssm.ListCommands(ctx, &ssm.ListCommandsInput{CommandId: &id})
		if lerr != nil || len(list.Commands) == 0 {
			return CommandResult{}, err
		}
		return CommandResult{ID: id, Status: "Pending"}, nil
	}
	return CommandResult{
		ID: id, Status: string(out.Status), ExitCode: int(out.ResponseCode),
		Stdout: aws.ToString(out.StandardOutputContent), Stderr: aws.ToString(out.StandardErrorContent),
	}, nil
}

// CommandReady tells whether an instance takes commands.
func (d *Driver) CommandReady(ctx context.Context, instance string) (bool, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.ssm.DescribeInstanceInformation(ctx, &ssm.DescribeInstanceInformationInput{
		Filters: []types.InstanceInformationStringFilter{{Key: new("InstanceIds"), Values: []string{instance}}},
	})
	if err != nil {
		err = translate("ssm:DescribeInstanceInformation", instance, err)
		if fault.CodeOf(err) == "InvalidInstanceId" { // not registered yet
			return false, nil
		}
		return false, err
	}
	for _, i := range out.InstanceInformationList {
		if aws.ToString(i.InstanceId) == instance && i.PingStatus == types.PingStatusOnline {
			return true, nil
		}
	}
	return false, nil
}

// Parameter reads a parameter of SSM's Parameter Store, such as a public one
// that names an image.
func (d *Driver) Parameter(ctx context.Context, name string) (string, error) {
	const op = "ssm:GetParameter"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: &name, WithDecryption: new(true)})
	if err != nil {
		return "", translate(op, name, err)
	}
	if out.Parameter == nil {
		return "", missing(op, name)
	}
	return aws.ToString(out.Parameter.Value), nil
}

// ForeignCommand is a Run Command that this installation did not send.
type ForeignCommand struct {
	ID, Document, Comment string
	Instances             []string
	At                    time.Time
}

// ForeignCommands lists the Run Commands since a moment that were sent to
// instances by name and are not ours: no intent of ours is behind them.
func (d *Driver) ForeignCommands(ctx context.Context, since time.Time) ([]ForeignCommand, error) {
	const op = "ssm:ListCommands"
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []ForeignCommand
	for p := ssm.NewListCommandsPaginator(d.ssm, &ssm.ListCommandsInput{
		Filters: []types.CommandFilter{{Key: types.CommandFilterKeyInvokedAfter, Value: new(since.UTC().Format("2006-01-02T15:04:05Z"))}},
	}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate(op, "", err)
		}
		for _, c := range page.Commands {
			mark, _, _ := strings.Cut(aws.ToString(c.Comment), ": ")
			if strings.HasPrefix(mark, "dayfly-") { // an intent's id that was too long for a comment
				continue
			}
			if intentForm.MatchString(mark) {
				if _, err := d.cfg.Store.Get(ctx, IntentKind, mark); err == nil {
					continue
				}
			}
			all = append(all, ForeignCommand{
				ID: aws.ToString(c.CommandId), Document: aws.ToString(c.DocumentName), Comment: aws.ToString(c.Comment),
				Instances: c.InstanceIds, At: aws.ToTime(c.RequestedDateTime),
			})
		}
	}
	return all, nil
}
