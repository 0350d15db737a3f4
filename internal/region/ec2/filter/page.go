package filter

import (
	"encoding/base64"
	"sort"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const tokenPrefix = "df1:"

// Page cuts one page out of items, which are sorted by key. The token names
// the last item of the page before, so that objects that come and go between
// two calls make no other object appear twice or not at all.
func Page[T any](items []T, key func(T) string, max *int64, least, most int64, token string) (page []T, next string, err error) {
	if max != nil && (*max < least || *max > most) {
		return nil, "", wire.Errorf("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value between %d and %d.", *max, least, most)
	}
	if token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		last, ok := strings.CutPrefix(string(raw), tokenPrefix)
		if err != nil || !ok {
			return nil, "", wire.Errorf("InvalidNextToken", "The token '%.40s' is invalid", token)
		}
		items = items[sort.Search(len(items), func(i int) bool { return key(items[i]) > last }):]
	}
	n := most
	if max != nil {
		n = *max
	} else if token == "" {
		return items, "", nil // AWS pages only who asks for pages, or what is huge
	}
	if int64(len(items)) <= n {
		return items, "", nil
	}
	items = items[:n]
	return items, base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + key(items[n-1]))), nil
}
