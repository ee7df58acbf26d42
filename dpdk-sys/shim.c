/*
 * The parts of DPDK's interface that exist only in its headers: thread-local macros and inline functions.
 * Calls here are made once for a burst, never once for a packet: packets are read from Rust.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "wrapper.h"

int weft_errno(void)
{
	return rte_errno;
}

unsigned int weft_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t weft_cycles(void)
{
	return rte_rdtsc();
}

uint16_t weft_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t weft_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

int weft_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void weft_keep_first_segment(struct rte_mbuf *mbuf)
{
	if (mbuf->next == NULL)
		return;
	rte_pktmbuf_free(mbuf->next);
	mbuf->next = NULL;
	mbuf->nb_segs = 1;
	mbuf->pkt_len = mbuf->data_len;
}

int weft_link(uint16_t port, uint32_t *mbps, int *up)
{
	struct rte_eth_link link;
	int result;

	memset(&link, 0, sizeof(link));
	result = rte_eth_link_get_nowait(port, &link);
	*mbps = link.link_speed;
	*up = link.link_status == RTE_ETH_LINK_UP;
	return result;
}

/* The collected log keeps its end: the cause of a failure comes last. Used by one thread, at start. */
static char log_text[16384];
static size_t log_length;
static FILE *log_stream;

static ssize_t log_write(void *cookie, const char *text, size_t size)
{
	size_t all = size;

	(void)cookie;
	if (size > sizeof(log_text)) {
		text += size - sizeof(log_text);
		size = sizeof(log_text);
	}
	if (log_length + size > sizeof(log_text)) {
		size_t excess = log_length + size - sizeof(log_text);

		memmove(log_text, log_text + excess, log_length - excess);
		log_length -= excess;
	}
	memcpy(log_text + log_length, text, size);
	log_length += size;
	return (ssize_t)all;
}

int weft_log_start(void)
{
	cookie_io_functions_t functions = {.write = log_write};

	log_length = 0;
	log_stream = fopencookie(NULL, "w", functions);
	if (log_stream == NULL)
		return -1;
	setvbuf(log_stream, NULL, _IOLBF, 0);
	return rte_openlog_stream(log_stream);
}

size_t weft_log_stop(char *text, size_t size)
{
	size_t length;

	if (log_stream == NULL)
		return 0;
	fflush(log_stream);
	rte_openlog_stream(NULL);
	fclose(log_stream);
	log_stream = NULL;
	length = log_length < size ? log_length : size;
	memcpy(text, log_text + (log_length - length), length);
	return length;
}
