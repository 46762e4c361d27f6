/* Windows' tbs.dll, kernel32.dll as the agent calls them, for tests elsewhere: signatures as in tbs.h and
   sysinfoapi.h, commands passed on to a software TPM on 127.0.0.1. On x86-64 Windows has one calling convention, so what
   ctypes passes is laid out as there. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BAD_PARAMETER 0x80284002u
#define INVALID_OUTPUT_POINTER 0x80284003u
#define INVALID_CONTEXT 0x80284004u
#define INSUFFICIENT_BUFFER 0x80284005u
#define IO_ERROR 0x80284006u
#define INVALID_CONTEXT_PARAM 0x80284007u

typedef struct { uint32_t version; uint32_t flags; } context_params;
typedef struct { uint32_t magic; int socket; } context;

static uint16_t tpm_port;
static uint32_t next_result;
static int open_contexts;
static const uint8_t *boot_log, *firmware;
static uint32_t boot_log_size, firmware_size, growth;

void test_set_port(uint16_t port) { tpm_port = port; }
void test_fail_next(uint32_t result) { next_result = result; }
int test_open_contexts(void) { return open_contexts; }
void test_set_log(const uint8_t *bytes, uint32_t size) { boot_log = bytes; boot_log_size = size; }
void test_grow_log(uint32_t bytes) { growth = bytes; }
void test_set_firmware(const uint8_t *bytes, uint32_t size) { firmware = bytes; firmware_size = size; }

static uint32_t failed(void) { uint32_t result = next_result; next_result = 0; return result; }

uint32_t Tbsi_Context_Create(const context_params *params, context **out)
{
    uint32_t result = failed();
    if (result) return result;
    if (!out) return INVALID_OUTPUT_POINTER;
    if (!params || params->version != 2 || params->flags != 4) return INVALID_CONTEXT_PARAM; /* includeTpm20 alone */
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(tpm_port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    if (peer < 0 || connect(peer, (struct sockaddr *)&address, sizeof address)) return IO_ERROR;
    *out = malloc(sizeof **out);
    (*out)->magic = 0x54425354;
    (*out)->socket = peer;
    open_contexts++;
    return 0;
}

static int read_all(int peer, uint8_t *to, uint32_t size)
{
    while (size > 0) {
        ssize_t got = read(peer, to, size);
        if (got <= 0) return 0;
        to += got;
        size -= got;
    }
    return 1;
}

uint32_t Tbsip_Submit_Command(context *handle, uint32_t locality, uint32_t priority, const uint8_t *command,
                              uint32_t command_size, uint8_t *response, uint32_t *response_size)
{
    uint32_t result = failed(), size;
    if (result) return result;
    if (!handle || handle->magic != 0x54425354) return INVALID_CONTEXT;
    if (locality != 0 || priority != 200 || command_size < 10) return BAD_PARAMETER;
    if (!response || !response_size) return INVALID_OUTPUT_POINTER;
    if (write(handle->socket, command, command_size) != (ssize_t)command_size) return IO_ERROR;
    if (*response_size < 10 || !read_all(handle->socket, response, 10)) return IO_ERROR;
    memcpy(&size, response + 2, sizeof size);
    size = ntohl(size);
    if (size > *response_size) return INSUFFICIENT_BUFFER;
    if (!read_all(handle->socket, response + 10, size - 10)) return IO_ERROR;
    *response_size = size;
    return 0;
}

uint32_t Tbsip_Context_Close(context *handle)
{
    if (!handle || handle->magic != 0x54425354) return INVALID_CONTEXT;
    handle->magic = 0;
    close(handle->socket);
    free(handle);
    open_contexts--;
    return 0;
}

uint32_t Tbsi_Get_TCG_Log_Ex(uint32_t kind, uint8_t *output, uint32_t *size)
{
    uint32_t result = failed(), needed = boot_log_size;
    if (result) return result;
    if (kind != 0) return BAD_PARAMETER; /* the tests want the log of the session that runs */
    if (!size) return INVALID_OUTPUT_POINTER;
    if (!output) {
        *size = needed - (growth < needed ? growth : 0); /* what is measured meanwhile is not in it yet */
        return INSUFFICIENT_BUFFER;
    }
    growth = 0;
    if (*size < needed) return INSUFFICIENT_BUFFER;
    memcpy(output, boot_log, needed);
    *size = needed;
    return 0;
}

uint32_t GetSystemFirmwareTable(uint32_t provider, uint32_t table, uint8_t *output, uint32_t size)
{
    if (provider != 0x52534D42u || table != 0) return 0; /* 'RSMB' as C writes it */
    if (!output || size < firmware_size) return firmware_size;
    memcpy(output, firmware, firmware_size);
    return firmware_size;
}
