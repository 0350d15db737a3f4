package autosign

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// EC2 asks with the role of the instance that this runs on.
type EC2 struct {
	client     *ec2.Client
	sts        *sts.Client
	stsAddress string
	custom     bool // not AWS's own address
}

// NewEC2 finds out where it is, and whose machines this one is of.
func NewEC2(ctx context.Context, c *Config) (*EC2, error) {
	meta := imds.New(imds.Options{})
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if c.Region == "" {
		r, err := meta.GetRegion(ctx, nil)
		if err != nil {
			return nil, err
		}
		c.Region = r.Region
	}
	if c.Owner == "" {
		c.Owner = tag(ctx, meta, tagOwner)
	}
	if c.Endpoint == "" {
		c.Endpoint = os.Getenv("AWS_ENDPOINT_URL")
	}
	creds := aws.NewCredentialsCache(ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = meta }))
	o := ec2.Options{Region: c.Region, Credentials: creds}
	so := sts.Options{Region: c.Region, Credentials: creds}
	suffix := ".amazonaws.com"
	if strings.HasPrefix(c.Region, "cn-") {
		suffix += ".cn"
	}
	address := "https://sts." + c.Region + suffix
	if c.Endpoint != "" {
		o.BaseEndpoint, so.BaseEndpoint, address = &c.Endpoint, &c.Endpoint, c.Endpoint
	}
	return &EC2{ec2.New(o), sts.New(so), address, c.Endpoint != ""}, nil
}

// tag of this machine; "" where the metadata service does not tell tags.
func tag(ctx context.Context, meta *imds.Client, key string) string {
	out, err := meta.GetMetadata(ctx, &imds.GetMetadataInput{Path: "tags/instance/" + key})
	if err != nil {
		return ""
	}
	defer out.Content.Close()
	var b strings.Builder
	buf := make([]byte, 256)
	for b.Len() < 1024 {
		n, err := out.Content.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return strings.TrimSpace(b.String())
}

// Machines implements Cloud. Ids go in a filter: one that is unknown is left
// out instead of failing them all.
func (e *EC2) Machines(ctx context.Context, ids []string) (map[string]Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out := map[string]Machine{}
	for len(ids) > 0 {
		n := min(len(ids), 100)
		p := ec2.NewDescribeInstancesPaginator(e.client, &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("instance-id"), Values: ids[:n]}}})
		ids = ids[n:]
		for p.HasMorePages() {
			page, err := p.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			for _, r := range page.Reservations {
				for _, i := range r.Instances {
					if i.State == nil {
						return nil, errors.New("an instance has no state")
					}
					m := Machine{ID: aws.ToString(i.InstanceId), State: string(i.State.Name), Tags: map[string]string{}}
					for _, t := range i.Tags {
						m.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
					}
					out[m.ID] = m
				}
			}
		}
	}
	return out, nil
}
