package cloud

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// aws is just enough of AWS, in memory, behind the SDK's HTTP client. It has
// CloudFormation's names, EC2's client tokens and SSM's lack of either, and
// counts what was really made and ended.
type fakeAWS struct {
	mu        sync.Mutex
	requests  []string
	stacks    map[string]*fakeThing
	instances map[string]*fakeThing
	images    map[string]*fakeThing
	snapshots map[string]bool
	commands  []*fakeThing
	effects   map[string]int
	// before and after run around each mutating request, outside of the lock.
	before, after func(op string) error
	fail          map[string]fakeError // by operation, as often as left
}

type fakeError struct {
	left, status  int
	code, message string
}

type fakeThing struct {
	id, name, token string
	tags            map[string]string
	state           string
}

func newFake() *fakeAWS {
	return &fakeAWS{
		stacks: map[string]*fakeThing{}, instances: map[string]*fakeThing{}, images: map[string]*fakeThing{}, snapshots: map[string]bool{},
		effects: map[string]int{}, fail: map[string]fakeError{},
	}
}

func (f *fakeAWS) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		_, op, _ := strings.Cut(target, ".")
		return f.run(op, func() (int, string) { return f.json(op, body) })
	}
	q, _ := url.ParseQuery(string(body))
	op := q.Get("Action")
	return f.run(op, func() (int, string) { return f.query(op, q) })
}

func (f *fakeAWS) run(op string, do func() (int, string)) (*http.Response, error) {
	reads := strings.HasPrefix(op, "Describe") || strings.HasPrefix(op, "List") || strings.HasPrefix(op, "Get")
	if f.before != nil && !reads {
		if err := f.before(op); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	f.requests = append(f.requests, op)
	e, failing := f.fail[op]
	var status int
	var out string
	if failing && e.left > 0 {
		e.left--
		f.fail[op] = e
		status, out = e.status, xmlError(e.code, e.message)
	} else {
		status, out = do()
	}
	f.mu.Unlock()
	if f.after != nil && !reads {
		if err := f.after(op); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(out)), ContentLength: int64(len(out))}, nil
}

// xmlError has the shapes of EC2 and of the query services at once.
func xmlError(code, message string) string {
	e := fmt.Sprintf("<Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>", code, message)
	return fmt.Sprintf("<ErrorResponse><Errors>%s</Errors>%s<RequestId>r</RequestId></ErrorResponse>", e, e)
}

func formTags(q url.Values, prefix string) map[string]string {
	out := map[string]string{}
	for i := 1; q.Has(fmt.Sprintf("%s.%d.Key", prefix, i)); i++ {
		out[q.Get(fmt.Sprintf("%s.%d.Key", prefix, i))] = q.Get(fmt.Sprintf("%s.%d.Value", prefix, i))
	}
	return out
}

func (t *fakeThing) ec2Tags() string {
	var b strings.Builder
	for k, v := range t.tags {
		fmt.Fprintf(&b, "<item><key>%s</key><value>%s</value></item>", k, v)
	}
	return "<tagSet>" + b.String() + "</tagSet>"
}

func (t *fakeThing) matches(q url.Values) bool {
	for i := 1; q.Has(fmt.Sprintf("Filter.%d.Name", i)); i++ {
		name, hit := q.Get(fmt.Sprintf("Filter.%d.Name", i)), false
		for j := 1; q.Has(fmt.Sprintf("Filter.%d.Value.%d", i, j)); j++ {
			v := q.Get(fmt.Sprintf("Filter.%d.Value.%d", i, j))
			switch name {
			case "client-token":
				hit = hit || t.token == v
			case "name":
				hit = hit || t.name == v
			case "instance-id":
				hit = hit || t.id == v
			default:
				hit = hit || t.tags[strings.TrimPrefix(name, "tag:")] == v
			}
		}
		if !hit {
			return false
		}
	}
	return true
}

func (f *fakeAWS) query(op string, q url.Values) (int, string) {
	result := func(format string, a ...any) (int, string) {
		s := fmt.Sprintf(format, a...)
		return 200, fmt.Sprintf("<%sResponse>%s<%sResult>%s</%sResult></%sResponse>", op, s, op, s, op, op)
	}
	refuse := func(code, message string) (int, string) { return 400, xmlError(code, message) }
	switch op {
	case "CreateStack":
		name := q.Get("StackName")
		if s := f.stacks[name]; s != nil && s.token != q.Get("ClientRequestToken") {
			return refuse("AlreadyExistsException", "Stack ["+name+"] already exists")
		} else if s == nil {
			f.effects[op]++
			f.stacks[name] = &fakeThing{id: "arn:stack/" + name, name: name, token: q.Get("ClientRequestToken"), tags: formTags(q, "Tags.member"), state: "CREATE_IN_PROGRESS"}
		}
		return result("<StackId>%s</StackId>", f.stacks[name].id)
	case "DescribeStacks":
		var b strings.Builder
		for _, s := range f.stacks {
			if n := q.Get("StackName"); n != "" && n != s.name && n != s.id {
				continue
			}
			var tags strings.Builder
			for k, v := range s.tags {
				fmt.Fprintf(&tags, "<member><Key>%s</Key><Value>%s</Value></member>", k, v)
			}
			fmt.Fprintf(&b, "<member><StackId>%s</StackId><StackName>%s</StackName><StackStatus>%s</StackStatus><CreationTime>2030-01-01T00:00:00Z</CreationTime><Tags>%s</Tags></member>", s.id, s.name, s.state, tags.String())
		}
		if b.Len() == 0 && q.Get("StackName") != "" {
			return refuse("ValidationError", "Stack with id "+q.Get("StackName")+" does not exist")
		}
		return result("<Stacks>%s</Stacks>", b.String())
	case "DeleteStack":
		if f.stacks[q.Get("StackName")] != nil {
			f.effects[op]++
			delete(f.stacks, q.Get("StackName"))
		}
		return result("")
	case "RunInstances":
		var ids []string
		for _, i := range f.instances {
			if i.token == q.Get("ClientToken") {
				ids = append(ids, i.id)
			}
		}
		if len(ids) == 0 {
			f.effects[op]++
			for range len(q.Get("MinCount")) + 1 { // two, for a one-digit count
				id := fmt.Sprintf("i-%d", len(f.instances)+1)
				f.instances[id] = &fakeThing{id: id, token: q.Get("ClientToken"), tags: formTags(q, "TagSpecification.1.Tag"), state: "pending"}
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return result("<instancesSet><item><instanceId>%s</instanceId></item></instancesSet>", strings.Join(ids, "</instanceId></item><item><instanceId>"))
	case "DescribeInstances":
		var b strings.Builder
		for n := range len(f.instances) {
			if i := f.instances[fmt.Sprintf("i-%d", n+1)]; i.matches(q) {
				fmt.Fprintf(&b, "<item><instanceId>%s</instanceId><instanceState><name>%s</name></instanceState>%s</item>", i.id, i.state, i.ec2Tags())
			}
		}
		return result("<reservationSet><item><instancesSet>%s</instancesSet></item></reservationSet>", b.String())
	case "TerminateInstances":
		for i := 1; q.Has(fmt.Sprintf("InstanceId.%d", i)); i++ {
			in := f.instances[q.Get(fmt.Sprintf("InstanceId.%d", i))]
			if in == nil {
				return refuse("InvalidInstanceID.NotFound", "no such instance")
			}
			f.effects[op]++
			in.state = "shutting-down"
		}
		return result("")
	case "CreateImage":
		for _, i := range f.images {
			if i.name == q.Get("Name") {
				return refuse("InvalidAMIName.Duplicate", "AMI name "+i.name+" is already in use by AMI "+i.id)
			}
		}
		f.effects[op]++
		id := fmt.Sprintf("ami-%d", f.effects[op])
		f.images[id] = &fakeThing{id: id, name: q.Get("Name"), tags: formTags(q, "TagSpecification.1.Tag"), state: "pending"}
		f.snapshots["snap-"+id] = true
		return result("<imageId>%s</imageId>", id)
	case "DescribeImages":
		var b strings.Builder
		for _, i := range f.images {
			if want := q.Get("ImageId.1"); i.matches(q) && (want == "" || want == i.id) {
				fmt.Fprintf(&b, "<item><imageId>%s</imageId><name>%s</name><imageState>%s</imageState>%s<blockDeviceMapping><item><ebs><snapshotId>snap-%s</snapshotId></ebs></item></blockDeviceMapping></item>", i.id, i.name, i.state, i.ec2Tags(), i.id)
			}
		}
		if b.Len() == 0 && q.Get("ImageId.1") != "" {
			return refuse("InvalidAMIID.NotFound", "the image id does not exist")
		}
		return result("<imagesSet>%s</imagesSet>", b.String())
	case "DeregisterImage":
		if f.images[q.Get("ImageId")] == nil {
			return refuse("InvalidAMIID.NotFound", "the image id does not exist")
		}
		f.effects[op]++
		delete(f.images, q.Get("ImageId"))
		return result("")
	case "DeleteSnapshot":
		if !f.snapshots[q.Get("SnapshotId")] {
			return refuse("InvalidSnapshot.NotFound", "the snapshot does not exist")
		}
		f.effects[op]++
		delete(f.snapshots, q.Get("SnapshotId"))
		return result("")
	}
	return 501, xmlError("NotImplemented", op)
}

func (f *fakeAWS) json(op string, body []byte) (int, string) {
	var in struct {
		Comment, CommandID, NextToken string
		InstanceIds                   []string
		Parameters                    map[string][]string
	}
	json.NewDecoder(bytes.NewReader(body)).Decode(&in)
	switch op {
	case "SendCommand":
		f.effects[op]++
		c := &fakeThing{id: fmt.Sprintf("command-%d", len(f.commands)+1), name: in.Comment, state: in.Parameters["commands"][0]}
		f.commands = append(f.commands, c)
		return 200, fmt.Sprintf(`{"Command":{"CommandId":%q}}`, c.id)
	case "ListCommands": // one a page, and an empty page at the end
		at := 0
		fmt.Sscan(in.NextToken, &at)
		if at >= len(f.commands) {
			return 200, `{"Commands":[]}`
		}
		return 200, fmt.Sprintf(`{"Commands":[{"CommandId":%q,"Comment":%q}],"NextToken":"%d"}`, f.commands[at].id, f.commands[at].name, at+1)
	}
	return 501, `{"__type":"NotImplemented","message":"` + op + `"}`
}
