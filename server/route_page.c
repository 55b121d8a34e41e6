/* GET /: a page to try the networks with. The file is compiled into the program. */
#include "server/routes.h"

__asm__(".section .rodata\n"
        ".global page_html, page_html_end\n"
        "page_html:\n"
        ".incbin \"server/page/index.html\"\n"
        "page_html_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const char page_html[], page_html_end[];

void route_page(struct request *request) {
  request->reply.status = 200;
  request->reply.content_type = "text/html; charset=utf-8";
  request->reply.fixed = page_html;
  request->reply.fixed_length = (size_t)(page_html_end - page_html);
}
