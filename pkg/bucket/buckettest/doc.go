// Package buckettest holds the acceptance suite of every bucket, a log of what is
// done to one, faults and crashes to put into one, and a real S3 server.
//
// Only tests import it.
package buckettest
