//go:build linux

// Torture runs the real broker under load and kills it with SIGKILL, again and
// again, and counts at the clients whether what was acknowledged was kept.
//
//	torture [-cycles 40] [-seed N] [-limit 10m] /path/to/cairnmq
//
// # What is done
//
// A campaign is one data directory, one configuration drawn at random, and
// some twenty cycles of start, load and end. Publishers with sessions of both
// versions send QoS 0, 1 and 2, some with an expiry; subscribers listen with
// kept and with clean sessions, wide and narrow, with small receive maxima,
// reading slowly, or being away for most of the time; others set and clear
// retained messages and compare what a new subscriber gets, die with and
// without a will, and change their subscriptions. Meanwhile connections are
// cut, and the broker is stopped and continued (SIGSTOP, SIGCONT). A cycle
// ends by SIGKILL after a random number of acknowledgements, some by SIGTERM
// with SIGKILL in the middle of the orderly end; some starts are killed while
// the broker recovers. Segments and checkpoints are small, so that both happen
// all the time; half of the campaigns have a budget that is too small for what
// is published.
//
// # What must hold
//
// The death of the process costs nothing in any durability class, so:
//
//   - a session that was acknowledged is present at the next connection;
//   - a message acknowledged to its publisher comes to every subscriber that
//     is to have it, unless the budget took it; at QoS 2 on both sides exactly
//     once;
//   - in each stream, the messages of one publisher with one topic and QoS,
//     first deliveries come in order, and to a subscriber that stays connected
//     without a gap;
//   - nothing is delivered that was not sent, or with another byte in it;
//   - no more messages are in flight than the receive maximum, and no packet
//     identifier is used for another message before its PUBREL;
//   - the retained message of a topic is the one acknowledged last, or one
//     sent after it;
//   - a will that is due comes exactly once, one that is not due never;
//   - subscriptions are those that were acknowledged;
//   - what the budget took from a subscriber is in the loss ledger;
//   - the broker starts, ends in order when it is asked to, and "log ls
//     --scan" finds no damage.
//
// What was under way when the broker was killed may have happened or not; the
// next connection finds out, or allows both.
//
// The first failure ends the program with a non-zero status. It says what was
// expected, the seed, and where the data directory is, which is kept. The seed
// decides the configurations and the moments to kill, not what the scheduler
// makes of them.
package main
