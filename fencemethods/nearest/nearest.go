// SPDX-License-Identifier: GPL-2.0-only

// Package nearest finds the word that somebody who mistyped one probably meant. Configuration
// parsers and command lines use it for their "did you mean" texts, never on the fence path.
package nearest

import "strings"

// Nearest returns the candidate that the fewest typing slips separate from word, or "" when none
// is near: more than half of the letters would have to change. A slip is a letter added, lost,
// changed, or swapped with its neighbour; case does not count. The first of several equally near
// candidates wins.
func Nearest(word string, candidates []string) string {
	best, fewest := "", -1
	for _, c := range candidates {
		slips := distance(strings.ToLower(word), strings.ToLower(c))
		if 2*slips > max(len(word), len(c)) {
			continue
		}
		if fewest < 0 || slips < fewest {
			best, fewest = c, slips
		}
	}
	return best
}

// distance is the optimal string alignment distance: Levenshtein's, with swapped neighbours
// counted once. Words here are ASCII names, so bytes are letters.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	before, above, row := rows[0], rows[1], rows[2]
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			changed := above[j-1]
			if a[i-1] != b[j-1] {
				changed++
			}
			row[j] = min(above[j]+1, row[j-1]+1, changed)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
