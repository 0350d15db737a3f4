package ec2

import (
	"net/netip"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/permission"
)

// What the tables hold. Slices and maps are replaced, never changed in place.

type block struct{ Assoc, CIDR string }

type vpc struct {
	ID                       string
	CIDRs                    []block // the first is the VPC's own
	V6                       []block
	DNSSupport, DNSHostnames bool
	Metrics                  bool
	DHCP                     string
	MainTable, Group, ACL    string // the defaults, which live and die with the VPC
}

type subnet struct {
	ID, VPC, Zone, CIDR string
	V6                  []block
	MapPublic, AssignV6 bool
	Resource            bool // host names are resource names
	NameA, NameAAAA     bool
	DNS64               bool
	Table, TableAssoc   string // "" = the VPC's main table
	ACL, ACLAssoc       string
}

type route struct{ Dest, Gateway, NAT, EgressOnly string }

type routeTable struct {
	ID, VPC   string
	MainAssoc string // set where it is the main table
	Routes    []route
}

type gateway struct{ ID, VPC string }

type nat struct {
	ID, VPC, Subnet, Card, Allocation string
	State                             string
	Private, Public                   netip.Addr
	Created, Deleted                  time.Time
}

type address struct {
	ID    string // eipalloc-…
	IP    netip.Addr
	Assoc string // eipassoc-…, "" while it is free
	Card  string
}

type aclEntry struct {
	Number   int64
	Egress   bool
	CIDR     string
	Deny     bool
	Protocol string
	Ports    [2]int64 // as given, all of them
}

type acl struct {
	ID, VPC string
	Default bool
	Entries []aclEntry
}

type group struct {
	ID, VPC, Name, Description string
	Rules                      []permission.Rule
}

// What a card (network interface) is for.
const (
	cardInstance = "interface"
	cardManaged  = "managed" // of a load balancer
	cardNAT      = "nat_gateway"
)

type card struct {
	ID, VPC, Subnet, Zone string
	Kind                  string
	IP                    netip.Addr
	Public                netip.Addr // zero: none
	Allocation            string     // of Public where it is an elastic address
	Groups                []string
	Instance              string
	Description           string
	Gone                  bool // is being taken out of the network
	Created               time.Time
}

type dhcpOptions struct {
	ID     string
	Values map[string][]string
}

// State names, AWS's.
const (
	pending      = "pending"
	running      = "running"
	shuttingDown = "shutting-down"
	terminated   = "terminated"
	stopping     = "stopping"
	stopped      = "stopped"
)

type reason struct{ Code, Message string }

type metadata struct {
	Off      bool // HttpEndpoint disabled
	Required bool // HttpTokens
	Hops     int64
	Tags     bool
}

type instance struct {
	ID, Reservation string
	Index           int64
	Token           string
	Image           string // ami-…
	Disk            string // the hypervisor's image
	Arch            string
	Type            string
	State           string
	Reason          reason
	Transition      string
	Launched        time.Time
	Ended           time.Time // terminated since
	VPC, Subnet     string
	Zone            string
	Card            string
	IP              netip.Addr // stays readable when the card is gone
	WantPublic      bool
	Hostname        string
	Resource        bool // named after its id
	NameA           bool
	Profile         *profile
	Meta            metadata
	UserData        string // base64, as given
	Terminate       bool   // when it shuts itself down
	NoTerminate     bool   // DisableApiTermination
	NoStop          bool
	Monitoring      bool
	EBSOptimized    bool
	VolumeGiB       int64
	VolumeType      string

	Epoch   int64    // counts every change of what runs, so that late news is recognised
	Booted  bool     // the hypervisor has made it once
	Force   bool     // stop without grace
	Reboot  bool     // is to be stopped and started, while it counts as running
	Imaging []string // images to be made of its disk, ami-…
}

type profile struct {
	ARN, ID string
	Assoc   string
	Since   time.Time
}

type image struct {
	ID, Name, Description  string
	Owner                  string
	Public                 bool
	State                  string // pending, available, failed
	Reason                 reason
	Disk                   string // the hypervisor's image
	Snapshot               string
	Arch                   string
	GiB                    int64
	IMDS                   string // v2.0 or ""
	Created                time.Time
	SourceInstance, Source string
	VolumeType             string
}

type snapshot struct {
	ID, Owner, Description string
	Disk                   string
	Volume                 string
	GiB, Bytes             int64
	State                  string // pending, completed, error
	Started, Completed     time.Time
}

type template struct {
	ID, Name        string
	CreatedBy       string
	Created         time.Time
	Default, Latest int64
}

type templateVersion struct {
	Template    string
	Number      int64
	Description string
	CreatedBy   string
	Created     time.Time
	Data        *ec2api.RequestLaunchTemplateData
}

type tagSet struct {
	Kind string // resource type, such as instance
	Tags map[string]string
}

// token remembers what a client token made.
type token struct {
	Hash string
	IDs  []string
	Made time.Time
}

// garbage is a hypervisor's image that nothing refers to.
type garbage struct{ Disk string }
