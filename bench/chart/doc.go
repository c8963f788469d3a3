// Package chart draws what was measured as SVG: bars side by side on a
// logarithmic axis, which is what figures a hundred times apart need. The
// pictures carry their own colours for light and dark screens, text that can be
// read by machines, and no script.
package chart
