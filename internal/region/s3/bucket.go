package s3

import (
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/state"
)

type publicAccess struct {
	XMLName               xml.Name `xml:"PublicAccessBlockConfiguration" json:"-"`
	BlockPublicAcls       bool
	IgnorePublicAcls      bool
	BlockPublicPolicy     bool
	RestrictPublicBuckets bool
}

func noBucket() error {
	return failure(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
}

// load reads the call's bucket.
func (c *call) load() (b bucket, err error) {
	c.db.View(func(tx *state.Tx) {
		var ok bool
		if b, ok = c.buckets.Get(tx, c.bucket); !ok {
			err = noBucket()
		}
	})
	return b, err
}

func (c *call) change(f func(b *bucket)) error {
	return c.db.Update(func(tx *state.Tx) error {
		b, ok := c.buckets.Get(tx, c.bucket)
		if !ok {
			return noBucket()
		}
		f(&b)
		c.buckets.Put(tx, b.Name, b)
		return nil
	})
}

func (c *call) listBuckets() error {
	if err := c.mayOn("ListAllMyBuckets", "*", nil); err != nil {
		return err
	}
	type entry struct{ Name, CreationDate string }
	var out struct {
		Owner struct{ ID string }
		List  []entry `xml:"Buckets>Bucket"`
	}
	out.Owner.ID = c.caller.Account
	c.db.View(func(tx *state.Tx) {
		for _, b := range c.buckets.All(tx) {
			if strings.HasPrefix(b.Name, c.query.Get("prefix")) {
				out.List = append(out.List, entry{b.Name, stamp(b.Created)})
			}
		}
	})
	return c.answer("ListAllMyBucketsResult", out)
}

func (c *call) createBucket() error {
	if err := c.may("CreateBucket"); err != nil {
		return err
	}
	if err := c.refuse("X-Amz-Bucket-Object-Lock-Enabled"); err != nil {
		return err
	}
	var conf struct {
		LocationConstraint string
		Tags               []tag `xml:"Tags>Tag"`
	}
	if c.r.ContentLength != 0 {
		if err := c.read(&conf); err != nil {
			return err
		}
	} else if _, err := io.Copy(io.Discard, c.r.Body); err != nil {
		return err
	}
	tags, err := tagMap(conf.Tags)
	if err != nil {
		return err
	}
	err = c.db.Update(func(tx *state.Tx) error {
		if _, ok := c.buckets.Get(tx, c.bucket); ok {
			return failure(http.StatusConflict, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.")
		}
		// New buckets are closed to the public, as on AWS since 2023.
		c.buckets.Put(tx, c.bucket, bucket{Name: c.bucket, Location: conf.LocationConstraint, Created: c.modified(), Tags: tags,
			Access: &publicAccess{BlockPublicAcls: true, IgnorePublicAcls: true, BlockPublicPolicy: true, RestrictPublicBuckets: true}})
		return nil
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/"+c.bucket)
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) headBucket() error {
	if err := c.may("ListBucket"); err != nil {
		return err
	}
	b, err := c.load()
	if err != nil {
		return err
	}
	if b.Location != "" {
		c.w.Header().Set("X-Amz-Bucket-Region", b.Location)
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) deleteBucket() error {
	if err := c.may("DeleteBucket"); err != nil {
		return err
	}
	var files []string
	err := c.db.Update(func(tx *state.Tx) error {
		if _, ok := c.buckets.Get(tx, c.bucket); !ok {
			return noBucket()
		}
		for _, o := range c.objects.All(tx) {
			if o.Bucket == c.bucket {
				return failure(http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty")
			}
		}
		for id, u := range c.uploads.All(tx) {
			if u.Bucket == c.bucket {
				files = append(files, c.forget(tx, id)...)
			}
		}
		c.buckets.Delete(tx, c.bucket)
		return nil
	})
	if err != nil {
		return err
	}
	c.drop(files...)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) getLocation() error {
	if err := c.may("GetBucketLocation"); err != nil {
		return err
	}
	b, err := c.load()
	if err != nil {
		return err
	}
	return c.answer("LocationConstraint", struct {
		Text string `xml:",chardata"`
	}{b.Location})
}

type tag struct{ Key, Value string }

func tagMap(l []tag) (map[string]string, error) {
	m := map[string]string{}
	for _, t := range l {
		if _, twice := m[t.Key]; twice || t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256 || strings.HasPrefix(t.Key, "aws:") {
			return nil, failure(http.StatusBadRequest, "InvalidTag", "The tag %q is not valid", t.Key)
		}
		m[t.Key] = t.Value
	}
	if len(m) > 50 {
		return nil, failure(http.StatusBadRequest, "BadRequest", "Bucket tag count cannot be greater than 50")
	}
	return m, nil
}

func (c *call) getTags() error {
	if err := c.may("GetBucketTagging"); err != nil {
		return err
	}
	b, err := c.load()
	if err != nil {
		return err
	}
	if len(b.Tags) == 0 {
		return failure(http.StatusNotFound, "NoSuchTagSet", "The TagSet does not exist")
	}
	var out struct {
		Tags []tag `xml:"TagSet>Tag"`
	}
	for k, v := range b.Tags {
		out.Tags = append(out.Tags, tag{k, v})
	}
	slices.SortFunc(out.Tags, func(a, b tag) int { return strings.Compare(a.Key, b.Key) })
	return c.answer("Tagging", out)
}

func (c *call) putTags() error {
	if err := c.may("PutBucketTagging"); err != nil {
		return err
	}
	var in struct {
		XMLName xml.Name `xml:"Tagging"`
		Tags    []tag    `xml:"TagSet>Tag"`
	}
	if err := c.read(&in); err != nil {
		return err
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return err
	}
	return c.noContent(c.change(func(b *bucket) { b.Tags = tags }))
}

func (c *call) deleteTags() error {
	if err := c.may("PutBucketTagging"); err != nil {
		return err
	}
	return c.noContent(c.change(func(b *bucket) { b.Tags = nil }))
}

func (c *call) noContent(err error) error {
	if err == nil {
		c.w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (c *call) getAccess() error {
	if err := c.may("GetBucketPublicAccessBlock"); err != nil {
		return err
	}
	b, err := c.load()
	if err != nil {
		return err
	}
	if b.Access == nil {
		return failure(http.StatusNotFound, "NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found")
	}
	a := *b.Access
	a.XMLName = xml.Name{}
	return c.answer("PublicAccessBlockConfiguration", a)
}

func (c *call) putAccess() error {
	if err := c.may("PutBucketPublicAccessBlock"); err != nil {
		return err
	}
	var in publicAccess
	if err := c.read(&in); err != nil {
		return err
	}
	if err := c.change(func(b *bucket) { b.Access = &in }); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) deleteAccess() error {
	if err := c.may("PutBucketPublicAccessBlock"); err != nil {
		return err
	}
	return c.noContent(c.change(func(b *bucket) { b.Access = nil }))
}

// refuse answers honestly that a wish which the header carries is not fulfilled.
func (c *call) refuse(names ...string) error {
	for _, n := range names {
		if v := c.r.Header.Get(n); v != "" && v != "false" {
			return failure(http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that the local region does not implement: %s: %s", strings.ToLower(n), v)
		}
	}
	return nil
}
