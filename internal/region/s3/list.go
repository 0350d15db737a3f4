package s3

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/state"
)

type listed struct {
	Key               string
	LastModified      string
	ETag              string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              int64
	StorageClass      string
}

type commonPrefix struct{ Prefix string }

type listing struct {
	Name                  string
	Prefix                string
	Marker                *string
	NextMarker            string `xml:",omitempty"`
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	KeyCount              *int
	MaxKeys               int
	IsTruncated           bool
	Contents              []listed
	CommonPrefixes        []commonPrefix
}

// listObjects is ListObjectsV2, and the old ListObjects without list-type=2.
func (c *call) listObjects() error {
	prefix, delimiter := c.query.Get("prefix"), c.query.Get("delimiter")
	if err := c.mayOn("ListBucket", c.arn(), map[string]string{"s3:prefix": prefix, "s3:delimiter": delimiter, "s3:max-keys": c.query.Get("max-keys")}); err != nil {
		return err
	}
	limit := 1000
	if v := c.query.Get("max-keys"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return failure(http.StatusBadRequest, "InvalidArgument", "Argument max-keys must be an integer between 0 and 2147483647")
		}
		limit = min(n, limit)
	}
	v2 := c.query.Get("list-type") == "2"
	after := c.query.Get("marker")
	if v2 {
		after = c.query.Get("start-after")
		if t := c.query.Get("continuation-token"); t != "" {
			b, err := base64.URLEncoding.DecodeString(t)
			if err != nil {
				return failure(http.StatusBadRequest, "InvalidArgument", "The continuation token provided is incorrect")
			}
			after = string(b)
		}
	}
	out := listing{Name: c.bucket, Prefix: c.encoded(prefix), Delimiter: c.encoded(delimiter), EncodingType: c.query.Get("encoding-type"), MaxKeys: limit}
	last := ""
	var err error
	c.db.View(func(tx *state.Tx) {
		if _, ok := c.buckets.Get(tx, c.bucket); !ok {
			err = noBucket()
			return
		}
		count, group := 0, ""
		for _, o := range c.objects.All(tx) {
			if o.Bucket != c.bucket || !strings.HasPrefix(o.Key, prefix) || o.Key <= after {
				continue
			}
			if delimiter != "" && after != "" && strings.HasSuffix(after, delimiter) && after != prefix && strings.HasPrefix(o.Key, after) {
				continue // the last page ended with this common prefix
			}
			cp := ""
			if rest := o.Key[len(prefix):]; delimiter != "" {
				if i := strings.Index(rest, delimiter); i >= 0 {
					cp = o.Key[:len(prefix)+i+len(delimiter)]
				}
			}
			if cp != "" && cp == group {
				continue
			}
			if count == limit {
				out.IsTruncated = limit > 0
				return
			}
			count++
			if cp != "" {
				group, last = cp, cp
				out.CommonPrefixes = append(out.CommonPrefixes, commonPrefix{c.encoded(cp)})
				continue
			}
			last = o.Key
			out.Contents = append(out.Contents, listed{Key: c.encoded(o.Key), LastModified: stamp(o.Modified), ETag: quote(o.ETag), ChecksumAlgorithm: o.Checksum.Algorithm, ChecksumType: o.typeIfChecksum(), Size: o.Size, StorageClass: "STANDARD"})
		}
	})
	if err != nil {
		return err
	}
	if v2 {
		out.KeyCount = new(len(out.Contents) + len(out.CommonPrefixes))
		out.ContinuationToken, out.StartAfter = c.query.Get("continuation-token"), c.encoded(c.query.Get("start-after"))
		if out.IsTruncated {
			out.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(last))
		}
	} else {
		out.Marker = new(c.encoded(after))
		if out.IsTruncated {
			out.NextMarker = c.encoded(last)
		}
	}
	return c.answer("ListBucketResult", out)
}

func (o object) typeIfChecksum() string {
	if o.Checksum.Value == "" {
		return ""
	}
	return o.ChecksumType
}
