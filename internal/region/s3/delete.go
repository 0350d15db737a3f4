package s3

import "github.com/dayfly-infra/dayfly/internal/region/state"

func (c *call) deleteObject() error {
	if err := c.may("DeleteObject"); err != nil {
		return err
	}
	return c.noContent(c.remove(c.key))
}

// remove deletes objects; one that is not there is deleted already.
func (c *call) remove(keys ...string) error {
	var old []string
	err := c.db.Update(func(tx *state.Tx) error {
		if _, ok := c.buckets.Get(tx, c.bucket); !ok {
			return noBucket()
		}
		for _, k := range keys {
			id := objectID(c.bucket, k)
			if o, ok := c.objects.Get(tx, id); ok {
				old = append(old, o.File)
				c.objects.Delete(tx, id)
			}
		}
		return nil
	})
	if err == nil {
		c.drop(old...)
	}
	return err
}

func (c *call) deleteObjects() error {
	var in struct {
		Quiet  bool
		Object []struct{ Key, VersionId string }
	}
	if err := c.read(&in); err != nil {
		return err
	}
	if len(in.Object) == 0 || len(in.Object) > 1000 {
		return malformedXML()
	}
	type deleted struct{ Key string }
	type failed struct{ Key, Code, Message string }
	var out struct {
		Deleted []deleted
		Error   []failed
	}
	var keys []string
	for _, o := range in.Object {
		switch {
		case o.VersionId != "":
			out.Error = append(out.Error, failed{o.Key, "NotImplemented", "the local region has no object versions"})
		case c.mayOn("DeleteObject", "arn:aws:s3:::"+c.bucket+"/"+o.Key, nil) != nil:
			out.Error = append(out.Error, failed{o.Key, "AccessDenied", "Access Denied"})
		default:
			keys = append(keys, o.Key)
			if !in.Quiet {
				out.Deleted = append(out.Deleted, deleted{o.Key})
			}
		}
	}
	if err := c.remove(keys...); err != nil {
		return err
	}
	return c.answer("DeleteResult", out)
}
