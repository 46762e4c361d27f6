/* The whole userspace of a vector's guest: print every PCR and the boot log, then power off. */
typedef unsigned long u64;
static long call(long n, long a, long b, long c, long d, long e) {
    long r; register long r10 __asm__("r10") = d; register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return r;
}
static u64 length(const char *s) { u64 n = 0; while (s[n]) n++; return n; }
static void say(const char *s) { call(1, 1, (long)s, length(s), 0, 0); }
static void mount(const char *kind, const char *where) { call(83, (long)where, 0755, 0, 0, 0); call(165, (long)kind, (long)where, (long)kind, 0, 0); }
static void hex(const unsigned char *data, long size) {
    char out[64];
    for (long i = 0; i < size; i++) { out[2 * (i % 32)] = "0123456789abcdef"[data[i] >> 4]; out[2 * (i % 32) + 1] = "0123456789abcdef"[data[i] & 15]; if (i % 32 == 31 || i == size - 1) { call(1, 1, (long)out, 2 * (i % 32 + 1), 0, 0); say("\n"); } }
}
static unsigned char buffer[262144];
static long slurp(const char *path) {
    long fd = call(2, (long)path, 0, 0, 0, 0), size = 0, n;
    if (fd < 0) return -1;
    while ((n = call(0, fd, (long)buffer + size, sizeof buffer - size, 0, 0)) > 0) size += n;
    call(3, fd, 0, 0, 0, 0);
    return size;
}
void _start(void) {
    static const char *banks[] = {"sha1", "sha256", "sha384"};
    mount("sysfs", "/sys"); mount("securityfs", "/sys/kernel/security"); mount("proc", "/proc");
    say("\nVECTOR-BEGIN\n");
    for (int b = 0; b < 3; b++)
        for (int i = 0; i < 16; i++) {
            char path[64] = "/sys/class/tpm/tpm0/pcr-", *p = path + 24, number[4] = {0};
            for (const char *s = banks[b]; *s;) *p++ = *s++;
            *p++ = '/'; if (i > 9) *p++ = '1'; *p++ = '0' + i % 10; *p = 0;
            if (i > 9) { number[0] = '1'; number[1] = '0' + i % 10; } else number[0] = '0' + i;
            long size = slurp(path);
            say("PCR "); say(banks[b]); say(" "); say(number); say(" ");
            if (size > 0) call(1, 1, (long)buffer, size, 0, 0); else say("none\n");
        }
    say("LOG\n"); { long size = slurp("/sys/kernel/security/tpm0/binary_bios_measurements"); if (size > 0) hex(buffer, size); }
    say("CMDLINE\n"); { long size = slurp("/proc/cmdline"); if (size > 0) call(1, 1, (long)buffer, size, 0, 0); }
    say("VECTOR-END\n");
    call(169, 0xfee1dead, 672274793, 0x4321fedc, 0, 0);
    for (;;) call(34, 0, 0, 0, 0, 0);
}
