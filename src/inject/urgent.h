/* While threads of a target stand still nobody else should have our processor: where a program keeps all of them busy
 * with many threads, the tool would get its share of time like any other, and the stop would last that much longer.
 *
 * The calling thread has the highest priority from urgent__begin() to the matching urgent__end() (setpriority(2), -20),
 * if that is permitted. Not a real-time one: on a single processor the thread that is waited for must run. */
#ifndef LLU_INJECT_URGENT_H
#define LLU_INJECT_URGENT_H

/* May be nested. */
void urgent__begin(void);
void urgent__end(void);

#endif
