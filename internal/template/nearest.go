package template

import (
	"maps"
	"slices"
	"strings"
)

// Nearest returns the word that is most like the given one, "" where none is
// like it.
func Nearest(word string, words []string) string {
	best, least := "", len(word)/3+2
	for _, w := range words {
		d := distance(strings.ToLower(word), strings.ToLower(w), least)
		if d < least || d == least && best != "" && w < best {
			best, least = w, d
		}
	}
	return best
}

func didYouMean(word string, words []string) string {
	if n := Nearest(word, words); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}

// distance is the number of letters to change, add, remove or swap, or more than limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
