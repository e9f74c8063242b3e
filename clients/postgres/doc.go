// Package postgres keeps client records in a table of a PostgreSQL database, which
// several nodes and other programs may share. It is the Caddy module
// `mtls.clients.postgres`.
//
// # How no change is lost
//
// A trigger notifies of every change, so that a [Source] reads the row within a second.
// Notifications are lost with the connection, so it also looks for itself, every few
// seconds. Each row has the number of the transaction that changed it last, and what is
// read next is every row whose transaction the last snapshot did not see. That is not
// "every number greater than the last one", because transactions do not end in the order
// of their numbers: one that began before the last look and commits after it has a smaller
// number, but the snapshot says that it was running. Rows that were deleted leave their
// client_id in a second table.
//
// A connection may lead to another server than the one before it, or to one that was
// restored from a backup, so everything is read again after each connect.
package postgres
