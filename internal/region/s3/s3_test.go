package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	"github.com/dayfly-infra/dayfly/internal/region/s3"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

type store struct {
	dir string
	url string
	iam *iam.Service
	db  *state.DB
}

func newStore(t *testing.T) *store {
	t.Helper()
	dir := t.TempDir()
	s := &store{dir: filepath.Join(dir, "s3")}
	var err error
	if s.db, err = state.Open(filepath.Join(dir, "db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	if s.iam, err = iam.New(iam.Config{Account: "123456789012", Region: "local-1", AccessKeyID: "AKIATEST", SecretAccessKey: "sesame"}, s.db, clock.Real{}); err != nil {
		t.Fatal(err)
	}
	svc, err := s3.New(s.dir, s.db, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	svc.Policy = s.iam
	w := wire.NewServer(wire.NewBus(), s.iam, s.iam, slog.New(slog.NewTextHandler(io.Discard, nil)), clock.Real{})
	w.Objects = svc
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *store) client(id, secret, token string, f ...func(*awss3.Options)) *awss3.Client {
	return awss3.NewFromConfig(aws.Config{Region: "local-1", BaseEndpoint: aws.String(s.url), Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token}, nil
		})}, append([]func(*awss3.Options){func(o *awss3.Options) { o.UsePathStyle = true }}, f...)...)
}

func (s *store) root() *awss3.Client { return s.client("AKIATEST", "sesame", "") }

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func (s *store) bucket(t *testing.T, c *awss3.Client, name string) {
	t.Helper()
	if _, err := c.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, c *awss3.Client, bucket, key, body string) {
	t.Helper()
	if _, err := c.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
}

func (s *store) files(t *testing.T) (n int) {
	t.Helper()
	filepath.WalkDir(s.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
			if info, _ := d.Info(); info.Mode().Perm() != 0o600 {
				t.Errorf("%s has the mode %v", d.Name(), info.Mode())
			}
		}
		return err
	})
	return n
}

func TestObjects(t *testing.T) {
	s := newStore(t)
	c, ctx := s.root(), t.Context()
	s.bucket(t, c, "box")
	b := aws.String("box")
	for _, alg := range append(types.ChecksumAlgorithm("").Values(), "") {
		if strings.HasPrefix(string(alg), "XX") || alg == "SHA512" || alg == "MD5" {
			continue // newer ones
		}
		key := aws.String("dir/ü +&?#%2F//" + string(alg))
		body := bytes.Repeat([]byte("0123456789"), 20_000)
		out, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: b, Key: key, Body: bytes.NewReader(body), ChecksumAlgorithm: alg, ContentType: aws.String("text/x"), Metadata: map[string]string{"a-b": "c d"}})
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		got, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: key, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		read, err := io.ReadAll(got.Body) // the SDK checks the checksum here
		if err != nil || !bytes.Equal(read, body) || *got.ETag != *out.ETag || *got.ContentType != "text/x" || got.Metadata["a-b"] != "c d" || *got.ContentLength != 200_000 {
			t.Errorf("%s: got %d bytes, %v, %+v", alg, len(read), err, got)
		}
	}
	key := aws.String("k")
	put(t, c, "box", "k", "hello world")
	for r, want := range map[string]string{"bytes=0-4": "hello", "bytes=6-": "world", "bytes=-3": "rld", "bytes=6-100": "world", "bytes=0-1,3-4": "hello world", "lines=1": "hello world"} {
		got, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: key, Range: &r})
		if err != nil {
			t.Fatal(err)
		}
		if x, _ := io.ReadAll(got.Body); string(x) != want {
			t.Errorf("%s: got %q", r, x)
		}
	}
	if _, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: key, Range: aws.String("bytes=11-")}); code(err) != "InvalidRange" {
		t.Errorf("a range past the end: %v", err)
	}
	head, err := c.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: b, Key: key})
	if err != nil || *head.ContentLength != 11 {
		t.Fatalf("head: %+v, %v", head, err)
	}
	if _, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: key, IfNoneMatch: head.ETag}); err == nil || !strings.Contains(err.Error(), "304") {
		t.Errorf("the same ETag: %v", err)
	}
	if _, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: key, IfMatch: aws.String(`"x"`)}); code(err) != "PreconditionFailed" {
		t.Errorf("another ETag: %v", err)
	}
	if _, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: key, IfModifiedSince: aws.Time(time.Now().Add(time.Hour))}); err == nil || !strings.Contains(err.Error(), "304") {
		t.Errorf("not modified: %v", err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("x"), IfNoneMatch: aws.String("*")}); code(err) != "PreconditionFailed" {
		t.Errorf("create only: %v", err)
	}
	for _, err := range []error{
		func() error {
			_, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: aws.String("nope")})
			return err
		}(),
	} {
		if _, ok := errors.AsType[*types.NoSuchKey](err); !ok {
			t.Errorf("a key that is not there: %v", err)
		}
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("nobox"), Key: key, Body: strings.NewReader("x")}); code(err) != "NoSuchBucket" {
		t.Errorf("a bucket that is not there: %v", err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("x"), ContentMD5: aws.String("rL0Y20zC+Fzt72VPzMSk2A==")}); code(err) != "BadDigest" {
		t.Errorf("a wrong MD5: %v", err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("x"), ChecksumCRC32: aws.String("AAAAAA==")}); code(err) != "BadDigest" {
		t.Errorf("a wrong checksum: %v", err)
	}
	if _, err := c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: b, Key: key, CopySource: aws.String("box/k")}); code(err) != "NotImplemented" {
		t.Errorf("a copy: %v", err)
	}
	if _, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("x"), ServerSideEncryption: types.ServerSideEncryptionAwsKms}); code(err) != "NotImplemented" {
		t.Errorf("encryption: %v", err)
	}
}

func TestDeleteLeavesNothing(t *testing.T) {
	s := newStore(t)
	c, ctx := s.root(), t.Context()
	s.bucket(t, c, "box")
	b := aws.String("box")
	for range 3 { // an overwritten body goes as well
		put(t, c, "box", "a", "1")
		put(t, c, "box", "b", "2")
		put(t, c, "box", "c", "3")
	}
	if n := s.files(t); n != 3 {
		t.Errorf("%d files for three objects", n)
	}
	if _, err := c.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: b}); code(err) != "BucketNotEmpty" {
		t.Errorf("a full bucket: %v", err)
	}
	if _, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: b, Key: aws.String("a")}); err != nil {
		t.Fatal(err)
	}
	out, err := c.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("b")}, {Key: aws.String("c")}, {Key: aws.String("gone")}}}})
	if err != nil || len(out.Deleted) != 3 || len(out.Errors) != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: b, Key: aws.String("m")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.UploadPart(ctx, &awss3.UploadPartInput{Bucket: b, Key: aws.String("m"), UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteBucket(ctx, &awss3.DeleteBucketInput{Bucket: b}); err != nil {
		t.Fatal(err)
	}
	if n := s.files(t); n != 0 {
		t.Errorf("%d files for nothing", n)
	}
}

func TestSweepAfterACrash(t *testing.T) {
	dir := t.TempDir()
	db, err := state.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, f := range []string{"s3/tmp/aa", "s3/data/bb/bbcc"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s3.New(filepath.Join(dir, "s3"), db, clock.Real{}); err != nil {
		t.Fatal(err)
	}
	if n := (&store{dir: filepath.Join(dir, "s3")}).files(t); n != 0 {
		t.Errorf("%d files stayed", n)
	}
}

func TestListing(t *testing.T) {
	s := newStore(t)
	c, ctx := s.root(), t.Context()
	s.bucket(t, c, "box")
	s.bucket(t, c, "box2")
	for _, k := range []string{"a", "b/1", "b/2", "b/c/3", "b!", "d/1", "d/2", "e", "ü/x"} {
		put(t, c, "box", k, k)
	}
	tests := []struct {
		prefix, delimiter, after string
		want                     string
	}{
		{"", "", "", "a b! b/1 b/2 b/c/3 d/1 d/2 e ü/x"},
		{"", "/", "", "a b! b/ d/ e ü/"},
		{"b/", "/", "", "b/1 b/2 b/c/"},
		{"b", "", "", "b! b/1 b/2 b/c/3"},
		{"", "", "b/2", "b/c/3 d/1 d/2 e ü/x"},
		{"nope", "/", "", ""},
	}
	for _, tt := range tests {
		for _, size := range []int32{1, 2, 1000} {
			var got []string
			in := &awss3.ListObjectsV2Input{Bucket: aws.String("box"), Prefix: &tt.prefix, Delimiter: &tt.delimiter, MaxKeys: &size}
			if tt.after != "" {
				in.StartAfter = &tt.after
			}
			for p := awss3.NewListObjectsV2Paginator(c, in); p.HasMorePages(); {
				out, err := p.NextPage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(out.Contents) + len(out.CommonPrefixes); n > int(size) || int(*out.KeyCount) != n {
					t.Errorf("a page of %d has %d, says %d", size, n, *out.KeyCount)
				}
				var page []string
				for _, o := range out.Contents {
					page = append(page, *o.Key)
				}
				for _, cp := range out.CommonPrefixes {
					page = append(page, *cp.Prefix)
				}
				got = append(got, page...)
			}
			want := strings.Fields(tt.want)
			if size == 1000 { // there the prefixes come last
				got, want = sorted(got), sorted(want)
			}
			if size == 1 || size == 1000 {
				if strings.Join(got, " ") != strings.Join(want, " ") {
					t.Errorf("%+v by %d: got %v", tt, size, got)
				}
			} else if strings.Join(sorted(got), " ") != strings.Join(sorted(want), " ") {
				t.Errorf("%+v by %d: got %v", tt, size, got)
			}
		}
	}
	l, err := c.ListBuckets(ctx, nil)
	if err != nil || len(l.Buckets) != 2 || *l.Buckets[0].Name != "box" {
		t.Errorf("buckets: %+v, %v", l, err)
	}
}

func sorted(l []string) []string { return slices.Sorted(slices.Values(l)) }

func TestMultipart(t *testing.T) {
	s := newStore(t)
	c, ctx := s.root(), t.Context()
	s.bucket(t, c, "box")
	b, k := aws.String("box"), aws.String("big")
	data := make([]byte, 11<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for _, alg := range []types.ChecksumAlgorithm{"", types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmSha256, types.ChecksumAlgorithmCrc64nvme} {
		up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: b, Key: k, ChecksumAlgorithm: alg, ContentType: aws.String("x/y")})
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		var parts []types.CompletedPart
		for i, body := range [][]byte{data[:5<<20], data[5<<20 : 10<<20], data[10<<20:]} {
			out, err := c.UploadPart(ctx, &awss3.UploadPartInput{Bucket: b, Key: k, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: bytes.NewReader(body), ChecksumAlgorithm: alg})
			if err != nil {
				t.Fatalf("%s: %v", alg, err)
			}
			parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32, ChecksumSHA256: out.ChecksumSHA256, ChecksumCRC64NVME: out.ChecksumCRC64NVME})
		}
		complete := func(p []types.CompletedPart) error {
			_, err := c.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: b, Key: k, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: p}})
			return err
		}
		if err := complete([]types.CompletedPart{parts[1], parts[0]}); code(err) != "InvalidPartOrder" {
			t.Errorf("parts in disorder: %v", err)
		}
		if err := complete([]types.CompletedPart{parts[2], {PartNumber: aws.Int32(4), ETag: aws.String("x")}}); code(err) != "EntityTooSmall" {
			t.Errorf("a small part: %v", err)
		}
		if err := complete([]types.CompletedPart{{PartNumber: aws.Int32(4), ETag: aws.String("x")}}); code(err) != "InvalidPart" {
			t.Errorf("a part that is not there: %v", err)
		}
		if l, err := c.ListParts(ctx, &awss3.ListPartsInput{Bucket: b, Key: k, UploadId: up.UploadId, MaxParts: aws.Int32(2)}); err != nil || len(l.Parts) != 2 || !*l.IsTruncated {
			t.Errorf("parts: %+v, %v", l, err)
		}
		if err := complete(parts); err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if err := complete(parts); code(err) != "NoSuchUpload" {
			t.Errorf("completed twice: %v", err)
		}
		got, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: k, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		read, err := io.ReadAll(got.Body)
		if err != nil || !bytes.Equal(read, data) || !strings.HasSuffix(*got.ETag, `-3"`) || *got.ContentType != "x/y" {
			t.Errorf("%s: %d bytes, %v, %s", alg, len(read), err, *got.ETag)
		}
	}
	up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: b, Key: k})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: b, Key: k, UploadId: up.UploadId}); err != nil {
		t.Fatal(err)
	}
	if n := s.files(t); n != 1 {
		t.Errorf("%d files for one object", n)
	}
}

func TestBucketSettings(t *testing.T) {
	s := newStore(t)
	c, ctx := s.root(), t.Context()
	s.bucket(t, c, "box")
	b := aws.String("box")
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: b}); code(err) != "BucketAlreadyOwnedByYou" {
		t.Errorf("the same bucket again: %v", err)
	}
	if _, err := c.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: aws.String("nope")}); code(err) != "NotFound" {
		t.Errorf("a bucket that is not there: %v", err)
	}
	if _, err := c.GetBucketTagging(ctx, &awss3.GetBucketTaggingInput{Bucket: b}); code(err) != "NoSuchTagSet" {
		t.Errorf("no tags: %v", err)
	}
	if _, err := c.PutBucketTagging(ctx, &awss3.PutBucketTaggingInput{Bucket: b, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}}}); err != nil {
		t.Fatal(err)
	}
	if out, err := c.GetBucketTagging(ctx, &awss3.GetBucketTaggingInput{Bucket: b}); err != nil || len(out.TagSet) != 1 || *out.TagSet[0].Value != "v" {
		t.Errorf("tags: %+v, %v", out, err)
	}
	if out, err := c.GetPublicAccessBlock(ctx, &awss3.GetPublicAccessBlockInput{Bucket: b}); err != nil || !*out.PublicAccessBlockConfiguration.BlockPublicAcls {
		t.Errorf("a new bucket is open: %+v, %v", out, err)
	}
	if _, err := c.PutPublicAccessBlock(ctx, &awss3.PutPublicAccessBlockInput{Bucket: b, PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{BlockPublicPolicy: aws.Bool(true)}}); err != nil {
		t.Fatal(err)
	}
	if out, err := c.GetPublicAccessBlock(ctx, &awss3.GetPublicAccessBlockInput{Bucket: b}); err != nil || *out.PublicAccessBlockConfiguration.BlockPublicAcls || !*out.PublicAccessBlockConfiguration.BlockPublicPolicy {
		t.Errorf("settings: %+v, %v", out, err)
	}
	if _, err := c.GetBucketVersioning(ctx, &awss3.GetBucketVersioningInput{Bucket: b}); code(err) != "NotImplemented" {
		t.Errorf("versions: %v", err)
	}
	if _, err := s.client("AKIATEST", "wrong", "").HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: b}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a wrong secret: %v", err)
	}
	resp, err := http.Get(s.url + "/box/x")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 403 || !strings.Contains(string(body), "<Code>AccessDenied</Code>") {
		t.Errorf("anonymous: %d %s", resp.StatusCode, body)
	}
}

// role makes a role with a policy, and gives an instance's credentials of it.
func (s *store) role(t *testing.T, name, policy string) iam.Credentials {
	t.Helper()
	ctx := t.Context()
	if _, err := s.iam.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: name, AssumeRolePolicyDocument: `{"Statement":{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}}`}); err != nil {
		t.Fatal(err)
	}
	if err := s.iam.PutRolePolicy(ctx, &iamapi.PutRolePolicyRequest{RoleName: name, PolicyName: "p", PolicyDocument: policy}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.iam.CreateInstanceProfile(ctx, &iamapi.CreateInstanceProfileRequest{InstanceProfileName: name}); err != nil {
		t.Fatal(err)
	}
	if err := s.iam.AddRoleToInstanceProfile(ctx, &iamapi.AddRoleToInstanceProfileRequest{InstanceProfileName: name, RoleName: name}); err != nil {
		t.Fatal(err)
	}
	c, err := s.iam.InstanceCredentials(ctx, name, "i-0123456789abcdef0")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const mixedPolicy = `{"Statement":[
 {"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::box/mine/*"},
 {"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::box","Condition":{"StringLike":{"s3:prefix":"mine/*"}}}]}`

func TestRolesAreHeld(t *testing.T) {
	s := newStore(t)
	root, ctx := s.root(), t.Context()
	s.bucket(t, root, "box")
	put(t, root, "box", "mine/a", "a")
	put(t, root, "box", "yours/a", "a")
	cr := s.role(t, "web", mixedPolicy)
	c := s.client(cr.AccessKeyID, cr.SecretAccessKey, cr.SessionToken)
	b := aws.String("box")
	get := func(key string) error {
		_, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: &key})
		return err
	}
	if err := get("mine/a"); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"yours/a", "mine/../yours/a", "mine/none"} { // without ListBucket nobody learns what is not there
		if err := get(key); code(err) != "AccessDenied" {
			t.Errorf("%s: %v", key, err)
		}
	}
	list := func(prefix string) error {
		_, err := c.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: b, Prefix: &prefix})
		return err
	}
	if err := list("mine/"); err != nil {
		t.Error(err)
	}
	if err := list(""); code(err) != "AccessDenied" {
		t.Errorf("the whole bucket was listed: %v", err)
	}
	put(t, c, "box", "mine/b", "b")
	if _, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: b, Key: aws.String("mine/b")}); code(err) != "AccessDenied" {
		t.Errorf("deleted: %v", err)
	}
	out, err := c.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("mine/b")}}}})
	if err != nil || len(out.Errors) != 1 || *out.Errors[0].Code != "AccessDenied" {
		t.Errorf("deleted many: %+v, %v", out, err)
	}
}

func TestPresignedAndVirtualHost(t *testing.T) {
	s := newStore(t)
	c := s.root()
	s.bucket(t, c, "box")
	put(t, c, "box", "a b", "hello")
	req, err := awss3.NewPresignClient(c).PresignGetObject(t.Context(), &awss3.GetObjectInput{Bucket: aws.String("box"), Key: aws.String("a b"), ResponseContentType: aws.String("text/z")})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(req.URL)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || string(body) != "hello" || resp.Header.Get("Content-Type") != "text/z" {
		t.Errorf("presigned: %d %s %v", resp.StatusCode, body, resp.Header)
	}
	// Virtual host: every name leads to the test's server.
	to := strings.TrimPrefix(s.url, "http://")
	hosts := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		if r.Host == "" {
			r.Host = r.URL.Host
		}
		if !strings.HasPrefix(r.Host, "box.") {
			t.Errorf("the host is %s", r.Host)
		}
		r.URL.Host = to
		return http.DefaultTransport.RoundTrip(r)
	})}
	for _, endpoint := range []string{"http://localhost:1234", "http://s3.local-1.amazonaws.com"} {
		v := s.client("AKIATEST", "sesame", "", func(o *awss3.Options) {
			o.UsePathStyle, o.HTTPClient, o.BaseEndpoint = false, hosts, aws.String(endpoint)
		})
		put(t, v, "box", "v", endpoint)
		got, err := c.GetObject(t.Context(), &awss3.GetObjectInput{Bucket: aws.String("box"), Key: aws.String("v")})
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(got.Body); string(b) != endpoint {
			t.Errorf("got %s", b)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Instances without any SDK sign with curl. Old ones must be given the header
// x-amz-content-sha256, here as on AWS.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	s := newStore(t)
	s.bucket(t, s.root(), "box")
	cr := s.role(t, "web", mixedPolicy)
	run := func(args ...string) string {
		t.Helper()
		if !slices.Contains(args, "plain") {
			args = append(args, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD")
		}
		args = slices.DeleteFunc(args, func(a string) bool { return a == "plain" })
		conf := "user = \"" + cr.AccessKeyID + ":" + cr.SecretAccessKey + "\"\nheader = \"X-Amz-Security-Token: " + cr.SessionToken + "\"\n"
		cmd := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "-K", "-", "--aws-sigv4", "aws:amz:local-1:s3", "-w", "\n%{http_code}"}, args...)...)
		cmd.Stdin = strings.NewReader(conf)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("curl %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	file := filepath.Join(t.TempDir(), "f")
	body := strings.Repeat("0123456789abcdef", 100_000)
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"mine/plain.tar.gz", "mine/a%20b", "mine/a+b=c~d", "mine/%C3%BC"} {
		if got := run("-T", file, s.url+"/box/"+key); got != "\n200" {
			t.Errorf("put %s: %s", key, got)
		}
		if got := run(s.url + "/box/" + key); got != body+"\n200" {
			t.Errorf("get %s: %d bytes: %.300s", key, len(got), got)
		}
	}
	if got := run("-r", "0-3", s.url+"/box/mine/plain.tar.gz"); got != "0123\n206" {
		t.Errorf("a range: %s", got)
	}
	if got := run("--data-binary", "small", "-X", "PUT", s.url+"/box/mine/small"); got != "\n200" {
		t.Errorf("put by data: %s", got)
	}
	if got := run(s.url + "/box?list-type=2&prefix=mine%2F"); !strings.Contains(got, "<Key>mine/small</Key>") {
		t.Errorf("list: %s", got)
	}
	if got := run("plain", s.url+"/box/mine/small"); !strings.HasSuffix(got, "\n200") && !strings.Contains(got, "Missing required header for this request: x-amz-content-sha256") {
		t.Errorf("without the header: %s", got)
	}
	if got := run(s.url + "/box/yours/a"); !strings.Contains(got, "AccessDenied") || !strings.HasSuffix(got, "\n403") {
		t.Errorf("what is not allowed: %s", got)
	}
}

// The AWS command line is another implementation of everything.
func TestAWSCommandLine(t *testing.T) {
	cli, err := exec.LookPath("aws")
	if err != nil || testing.Short() {
		t.Skip("the AWS command line is not installed, or the test is to be short")
	}
	s := newStore(t)
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), cli, args...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+s.url, "AWS_REGION=local-1", "AWS_DEFAULT_REGION=local-1", "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=sesame",
			"AWS_CONFIG_FILE="+dir+"/config", "AWS_SHARED_CREDENTIALS_FILE="+dir+"/credentials", "AWS_EC2_METADATA_DISABLED=true")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("aws %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB: sent in parts
	if err := os.WriteFile(dir+"/f", data, 0o600); err != nil {
		t.Fatal(err)
	}
	run("s3", "mb", "s3://box")
	run("s3", "cp", dir+"/f", "s3://box/d/f")
	run("s3", "cp", dir+"/f", "s3://box/d/g h")
	if out := run("s3", "ls", "s3://box/d/"); !strings.Contains(out, "16777216 f\n") || !strings.Contains(out, "16777216 g h\n") {
		t.Errorf("ls: %s", out)
	}
	run("s3", "cp", "s3://box/d/f", dir+"/back")
	if back, err := os.ReadFile(dir + "/back"); err != nil || !bytes.Equal(back, data) {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
	run("s3", "rb", "--force", "s3://box")
	if n := s.files(t); n != 0 {
		t.Errorf("%d files stayed", n)
	}
}
