package cloud

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

const (
	maxObject = 5 << 30 // bytes in one PutObject
	// slowest is the rate that an upload or download must have at least.
	slowest = 256 << 10 // bytes per second
	// metaIntent marks an object with its intent (x-amz-meta-…).
	metaIntent = "dayfly-intent"
)

// Bucket is the name of Dayfly's own bucket, "" while the account is not known
// because the cloud does not answer.
func (d *Driver) Bucket() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	name, err := d.bucket(ctx)
	if err != nil {
		d.cfg.Log.Warn("the bucket's name is not known", "error", err)
	}
	return name
}

func (d *Driver) bucket(ctx context.Context) (string, error) {
	account, _, err := d.Identity(ctx)
	if err != nil {
		return "", err
	}
	return "dayfly-" + account + "-" + d.cfg.Region + "-" + d.cfg.Owner, nil
}

// ensureBucket makes the bucket where it is missing; only under an intent.
func (d *Driver) ensureBucket(ctx context.Context) (string, error) {
	name, err := d.bucket(ctx)
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	up := d.bucketUp
	d.mu.Unlock()
	if up {
		return name, nil
	}
	_, err = d.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name})
	err = translate("s3:HeadBucket", name, err)
	if isNotFound(err) {
		in := &s3.CreateBucketInput{Bucket: &name}
		if d.cfg.Region != "us-east-1" { // the one that must not be named
			in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(d.cfg.Region)}
		}
		_, err = d.s3.CreateBucket(ctx, in)
		err = translate("s3:CreateBucket", name, err)
		if fault.CodeOf(err) == "BucketAlreadyOwnedByYou" {
			err = nil
		}
	}
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	d.bucketUp = true
	d.mu.Unlock()
	return name, nil
}

// PutObject writes an object of Dayfly's own bucket, which is made at need.
func (d *Driver) PutObject(ctx context.Context, in Intent, key string, body io.ReadSeeker, size int64) error {
	const op = "s3:PutObject"
	if size < 0 || size > maxObject {
		return &fault.Error{Kind: fault.Invalid, Op: op, Object: key, Message: fmt.Sprintf("%d bytes; at most %d go in one piece", size, int64(maxObject))}
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: []any{key, size}, slow: time.Duration(size/slowest) * time.Second,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			bucket, err := d.bucket(ctx)
			if err != nil {
				return false, false, err
			}
			head, err := d.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
			if err := translate("s3:HeadObject", key, err); err != nil {
				if isNotFound(err) {
					err = nil
				}
				return false, false, err
			}
			return true, head.Metadata[metaIntent] == url.QueryEscape(in.ID) && aws.ToInt64(head.ContentLength) == size, nil
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			bucket, err := d.ensureBucket(ctx)
			if err != nil {
				return false, err
			}
			meta := map[string]string{metaIntent: url.QueryEscape(in.ID)}
			err = d.put(ctx, bucket, key, body, size, meta)
			if fault.CodeOf(err) == "NoSuchBucket" { // it was there once: look again
				d.mu.Lock()
				d.bucketUp = false
				d.mu.Unlock()
			}
			return err == nil, err
		},
	})
	return err
}

func (d *Driver) put(ctx context.Context, bucket, key string, body io.ReadSeeker, size int64, meta map[string]string) error {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("object %s: %w", key, err)
	}
	_, err := d.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: body, ContentLength: &size, Metadata: meta})
	return translate("s3:PutObject", key, err)
}

// GetObject opens an object of Dayfly's bucket; the caller closes it.
func (d *Driver) GetObject(ctx context.Context, key string) (io.ReadCloser, error) {
	bucket, err := d.bucket(ctx)
	if err != nil {
		return nil, err
	}
	return d.ObjectIn(ctx, bucket, key)
}

// ObjectIn opens an object of any bucket that the server may read; the caller
// closes it.
func (d *Driver) ObjectIn(ctx context.Context, bucket, key string) (io.ReadCloser, error) {
	const op = "s3:GetObject"
	// The body is read after this returns: its time ends when it is closed,
	// or when its size at the slowest rate has passed.
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(callTimeout, cancel)
	out, err := d.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		timer.Stop()
		cancel()
		return nil, translate(op, key, err)
	}
	timer.Reset(callTimeout + time.Duration(aws.ToInt64(out.ContentLength)/slowest)*time.Second)
	return &object{ReadCloser: out.Body, end: func() { timer.Stop(); cancel() }}, nil
}

type object struct {
	io.ReadCloser
	end func()
}

func (o *object) Close() error {
	err := o.ReadCloser.Close()
	o.end()
	return err
}

// Object reads a small object whole, at most limit bytes of it.
func (d *Driver) Object(ctx context.Context, key string, limit int64) ([]byte, error) {
	r, err := d.GetObject(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, limit))
	if err != nil {
		return nil, translate("s3:GetObject", key, err)
	}
	return raw, nil
}

// ListObjects returns the keys that begin with prefix, in order.
func (d *Driver) ListObjects(ctx context.Context, prefix string) ([]string, error) {
	objects, err := d.Objects(ctx, prefix)
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys, err
}

// Objects returns the objects whose keys begin with prefix, in the keys' order.
func (d *Driver) Objects(ctx context.Context, prefix string) ([]Object, error) {
	bucket, err := d.bucket(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	var objects []Object
	for p := s3.NewListObjectsV2Paginator(d.s3, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err := translate("s3:ListObjectsV2", prefix, err); err != nil {
			if isNotFound(err) { // no bucket, no objects
				return nil, nil
			}
			return nil, err
		}
		for _, o := range page.Contents {
			objects = append(objects, Object{Key: aws.ToString(o.Key), Modified: aws.ToTime(o.LastModified)})
		}
	}
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	return objects, nil
}

// DeletePrefix deletes the objects whose keys begin with prefix.
func (d *Driver) DeletePrefix(ctx context.Context, in Intent, prefix string) error {
	const op = "s3:DeleteObjects"
	if prefix == "" {
		return &fault.Error{Kind: fault.Invalid, Op: op, Message: "an empty prefix is the whole bucket"}
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: prefix, slow: 5 * time.Minute,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			keys, err := d.ListObjects(ctx, prefix)
			return true, err == nil && len(keys) == 0, err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			keys, err := d.ListObjects(ctx, prefix)
			if err != nil || len(keys) == 0 {
				return err == nil, err
			}
			bucket, err := d.bucket(ctx)
			if err != nil {
				return false, err
			}
			for some := range slices.Chunk(keys, pageSize) {
				var ids []types.ObjectIdentifier
				for _, k := range some {
					ids = append(ids, types.ObjectIdentifier{Key: &k})
				}
				out, err := d.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: ids, Quiet: new(true)}})
				if err != nil {
					return false, translate(op, prefix, err)
				}
				for _, e := range out.Errors {
					return false, &fault.Error{Kind: fault.Failed, Op: op, Object: aws.ToString(e.Key), Code: aws.ToString(e.Code), Message: aws.ToString(e.Message)}
				}
			}
			return true, nil
		},
	})
	return err
}
