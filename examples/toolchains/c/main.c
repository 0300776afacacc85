#include <stdio.h>
#include <string.h>
#include <zlib.h>

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        printf("%08lx  %s\n", crc32(0, (const Bytef *)argv[i], strlen(argv[i])), argv[i]);
    return 0;
}
